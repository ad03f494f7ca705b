"""What uses Apple's frameworks, type-checked against the declarations in ``stubs/``; it can't be linked here."""

import re
from collections.abc import Sequence
from pathlib import Path

from ios_demo.host.project import DEMO_MODULE, ROOT, swift_sources
from ios_demo.host.root import INSIDE, inside, run_swift
from ios_demo.host.toolchain import Toolchain

STUBS = Path(__file__).with_name("stubs")
_OPTIONS = (
    "-swift-version",
    "5",
    "-module-cache-path",
    "/tmp/dmf/modules/cache",
    "-I",
    "/tmp/dmf/modules",
    "-enable-testing",
)
_BODIES_ARE_BUILT_ELSEWHERE = ["-Xfrontend", "-experimental-skip-all-function-bodies"]  # by `swift build`


def typecheck(toolchain: Toolchain, modules: Path) -> int:
    """Check ``DMFCoreML``, the command-line tool, the app and its tests; return the number of files.

    Their modules are left in ``modules``, an empty folder. ToolError: an error.
    """
    for name in _in_order():
        stubs = [inside(path) for path in swift_sources(STUBS / name)]
        make_module(toolchain, modules, name, stubs, ["-suppress-warnings"])
    package = ROOT / "Sources"
    checked: list[tuple[str, list[Path], list[str]]] = [
        ("DMFClassifier", swift_sources(package / "DMFClassifier"), _BODIES_ARE_BUILT_ELSEWHERE),
        ("DMFCoreML", swift_sources(package / "DMFCoreML"), []),
        ("dmf_bench_coreml", swift_sources(package / "dmf-bench-coreml"), []),
        (DEMO_MODULE, swift_sources(ROOT / DEMO_MODULE), ["-parse-as-library"]),
        (f"{DEMO_MODULE}Tests", swift_sources(ROOT / f"{DEMO_MODULE}Tests"), []),
    ]
    for name, sources, options in checked:
        make_module(toolchain, modules, name, [inside(source) for source in sources], options)
    return sum(len(sources) for _, sources, _ in checked)


def make_module(
    toolchain: Toolchain, modules: Path, name: str, sources: Sequence[Path], options: Sequence[str] = ()
) -> None:
    """Leave ``name`` in ``modules``, which is ``/tmp/dmf/modules`` for a command. ToolError: a source has an error."""
    emit = ("-module-name", name, "-emit-module", "-emit-module-path", f"/tmp/dmf/modules/{name}.swiftmodule")
    analysis = ("-emit-sil", "-wmo", "-o", "/dev/null")  # finds what is not initialised, and what returns nothing
    command: list[str | Path] = ["swiftc", *emit, *analysis, *_OPTIONS, *options, *sources]
    run_swift(toolchain, command, f"{name} does not type-check", INSIDE, {modules: "modules"})


def _in_order() -> list[str]:
    """The stubs' modules, each after those that it imports."""
    imports = {
        folder.name: set(re.findall(r"^(?:@_exported )?import (\w+)", _text(folder), re.MULTILINE))
        for folder in STUBS.iterdir()
        if folder.is_dir()
    }
    order: list[str] = []
    while len(order) < len(imports):
        ready = [name for name, needed in imports.items() if name not in order and needed & set(imports) <= set(order)]
        order += sorted(ready)
    return order


def _text(folder: Path) -> str:
    return "\n".join(path.read_text() for path in folder.glob("*.swift"))
