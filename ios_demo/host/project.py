"""The folders of the iOS demo."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DEMO_MODULE = "DMFDemo"


def swift_sources(folder: Path) -> list[Path]:
    """All Swift files in ``folder``."""
    return sorted(folder.rglob("*.swift"))
