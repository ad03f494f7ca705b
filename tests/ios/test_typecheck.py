"""All Swift type-checks against the declarations in stubs/, which are Apple's."""

import pytest

from android_demo.host.process import ToolError
from ios_demo.host.project import DEMO_MODULE, ROOT, swift_sources
from ios_demo.host.typecheck import make_module


def test_all_sources_type_check(typechecked):
    folders = [ROOT / "Sources", ROOT / DEMO_MODULE, ROOT / f"{DEMO_MODULE}Tests"]
    assert typechecked.count == sum(len(swift_sources(folder)) for folder in folders) > 0


RIGHT = "_ = try model.prediction(from: features)"


@pytest.fixture
def check(toolchain, typechecked):
    """Type-checks a module of one function whose body is ``line``."""

    def check(module: str, line: str, effect: str = "throws") -> None:
        source = typechecked.modules / f"{module}.swift"
        signature = f"func run(_ model: MLModel, _ features: any MLFeatureProvider) {effect}"
        source.write_text(f"import CoreML\n{signature} {{\n    {line}\n}}\n")
        make_module(toolchain, typechecked.modules, module, [f"/tmp/dmf/modules/{source.name}"])

    return check


@pytest.mark.parametrize(
    ("module", "line", "effect", "problem"),
    [
        ("Member", RIGHT.replace("prediction", "predict"), "throws", "value of type 'MLModel' has no member 'predict'"),
        ("Type", RIGHT.replace("_", "let scores: [Double]"), "throws", "cannot convert value of type"),
        ("Flow", "let scores: Int; _ = scores", "", "constant 'scores' used before being initialized"),
        ("Effect", RIGHT, "", "errors thrown from here are not handled"),
    ],
)
def test_an_error_of_types_is_told(check, module, line, effect, problem):
    with pytest.raises(ToolError, match=rf"^{module} does not type-check: \S+/{module}\.swift:3:\d+: error: {problem}"):
        check(module, line, effect)


def test_what_is_right_type_checks(check):
    check("Right", RIGHT)
