"""The cells of a calibration that is not finished, in a file beside its output."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from rayspec.planning.calibrate_cells import Cell
from rayspec.planning.calibrate_measure import Result

__all__ = ["PartialFile"]

_FORMAT: Final = 1


class PartialFile:
    """Keeps the result of every cell that was measured; a failed one is measured again.

    `identity` is what must be the same for results to be worth keeping: another model, machine or
    application starts from nothing.
    """

    def __init__(self, out: Path, identity: Mapping[str, Any]) -> None:
        self.path = out.with_name(f"{out.name}.cells")
        self._identity = json.loads(json.dumps({"format": _FORMAT, **identity}))
        self._results: dict[str, Result] = {}
        self._read()

    def __len__(self) -> int:
        return len(self._results)

    def get(self, cell: Cell) -> Result | None:
        """Return the result of a cell, None if it is still to be measured."""
        return self._results.get(_key(cell))

    def put(self, cell: Cell, result: Result) -> None:
        """Keep a result, on disk too."""
        if "failed" in result:
            return
        self._results[_key(cell)] = result
        content = json.dumps({"identity": self._identity, "cells": self._results})
        partial = self.path.with_name(f"{self.path.name}.new")
        partial.write_text(content)
        partial.replace(self.path)

    def remove(self) -> None:
        """Forget everything: the calibration is complete."""
        self.path.unlink(missing_ok=True)

    def _read(self) -> None:
        try:
            content = json.loads(self.path.read_text())
            if content["identity"] == self._identity:
                self._results = dict(content["cells"])
        except (OSError, ValueError, KeyError, TypeError):
            return  # none there, or not ours: it is written anew


def _key(cell: Cell) -> str:
    return f"{type(cell).__name__} {json.dumps(asdict(cell))}"
