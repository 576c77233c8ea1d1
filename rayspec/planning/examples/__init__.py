"""Calibrations that ship with rayspec, to try the planning tools before measuring anything.

Every JSON file here is one, named after its hardware, and is offered by its name. `rayspec
calibrate --note "…" --out FILE` writes such a file; its notes say how it was measured.
"""

from __future__ import annotations

from pathlib import Path

from rayspec.errors import ConfigError
from rayspec.planning.calibration import Calibration

__all__ = ["DEFAULT", "names", "open_calibration"]

DEFAULT = "h200-8b"
_FOLDER = Path(__file__).parent


def names() -> list[str]:
    """Return the names of the examples."""
    return sorted(file.stem for file in _FOLDER.glob("*.json"))


def open_calibration(ref: str) -> Calibration:
    """Read a file, or an example by its name."""
    file = Path(ref)
    if not file.exists() and ref in names():
        file = _FOLDER / f"{ref}.json"
    elif not file.exists():
        examples = ", ".join(names())
        raise ConfigError(
            "calibration",
            ref,
            f"is no file; make one with `rayspec calibrate`, or take an example: {examples}",
        )
    return Calibration.load(file)
