"""What the Gradle project says of itself: its folders, and the versions of its catalogue."""

import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CATALOGUE = ROOT / "gradle" / "libs.versions.toml"
APPLICATION = "org.dmf.demo"
ABI = "arm64-v8a"


@dataclass(frozen=True)
class Versions:
    """Of the catalogue, what is needed without Gradle."""

    kotlin: str
    onnxruntime: str
    min_sdk: int
    target_sdk: int
    app_code: int
    app_name: str


def read_versions(catalogue: Path = CATALOGUE) -> Versions:
    """The versions that Gradle would use."""
    found = tomllib.loads(catalogue.read_text())["versions"]
    return Versions(
        kotlin=found["kotlin"],
        onnxruntime=found["onnxruntime"],
        min_sdk=int(found["minSdk"]),
        target_sdk=int(found["targetSdk"]),
        app_code=int(found["appVersionCode"]),
        app_name=found["appVersionName"],
    )


def kotlin_sources(module: str, kind: str = "main") -> list[Path]:
    """The Kotlin files of a module; ``kind`` is main or test."""
    return sorted((ROOT / module / "src" / kind / "kotlin").rglob("*.kt"))
