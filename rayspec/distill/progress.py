"""What a distillation says while it runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from rayspec.distill.acceptance import ClassAcceptance

__all__ = ["Counted", "Every", "brief"]


def brief(found: Mapping[str, ClassAcceptance]) -> str:
    """Return the acceptance of all classes in a line, greedy / sampled."""
    return ", ".join(
        f"{name} {_percent(each.greedy)}/{_percent(each.sampled)}" for name, each in found.items()
    )


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"


class Counted:
    """Adds up texts and tokens that come in pieces, and says how many there are.

    The rate is of what came after the first piece, before which engines start.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say, self._texts, self._tokens = say, 0, 0
        self._first: tuple[float, int] | None = None

    def __call__(self, texts: int, tokens: int) -> None:
        """Add a piece."""
        self._texts += texts
        self._tokens += tokens
        told = f"answers: {self._texts} texts, {self._tokens / 1e6:.2f}M tokens"
        if self._first is None:
            self._first = time.monotonic(), tokens
        else:
            began, before = self._first
            rate = (self._tokens - before) / max(time.monotonic() - began, 1e-9)
            told += f", {rate:.0f} tokens/s"
        self._say(told)


class Every:
    """Says something at most every so many seconds."""

    def __init__(self, seconds: float, say: Callable[[str], None]) -> None:
        self._seconds, self._say = seconds, say
        self._last = time.monotonic()

    def due(self) -> bool:
        """Return whether something said now would be heard."""
        return time.monotonic() - self._last >= self._seconds

    def __call__(self, text: str) -> None:
        """Say it, or not."""
        if self.due():
            self._last = time.monotonic()
            self._say(text)
