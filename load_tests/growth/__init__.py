"""Function-preserving growth: a small real model's function at a large shape's cost."""

from __future__ import annotations

from .layout import Layout
from .model import GrownModel
from .shapes import SHAPES, Dims, Shape

__all__ = ["SHAPES", "Dims", "GrownModel", "Layout", "Shape"]
