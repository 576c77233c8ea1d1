"""The draft process: mirrors its targets' sequences and proposes how they go on."""

from __future__ import annotations
