"""How much of its working time each lane shared with the other: whether engines measured alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from rayspec.routing.types import Lane

__all__ = ["Overlap"]

# Reports come with every answer and once a second; a longer pause says nothing about its middle.
_MOST_S = 1.0


class Overlap:
    """Keeps the share per lane, where what was seen counts half after `half_life_s`.

    The half-life is that of the engines' own measurements, which this is to explain. Not
    thread-safe.
    """

    def __init__(self, clock: Callable[[], float], half_life_s: float = 60.0) -> None:
        self._clock = clock
        self._half_life_s = half_life_s
        self._seen: dict[Lane, tuple[float, float]] = {}  # when last, and the share until then

    def observe(self, lane: Lane, *, beside: bool) -> None:
        """Note that a lane works now, and whether the other does, too."""
        now = self._clock()
        at, share = self._seen.get(lane, (now, float(beside)))
        keep = 0.5 ** (min(max(now - at, 0.0), _MOST_S) / self._half_life_s)
        self._seen[lane] = now, share * keep + float(beside) * (1 - keep)

    def shares(self) -> Mapping[Lane, float]:
        """Return the shares of the lanes that have worked, 0 to 1."""
        return {lane: share for lane, (_, share) in self._seen.items()}
