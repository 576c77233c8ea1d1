"""The mix of classes as it is written on a command line."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from itertools import accumulate

__all__ = ["deal", "parse_mix"]

_GOLDEN = 0.6180339887498949


def parse_mix(text: str, known: Collection[str]) -> dict[str, float]:
    """Read `code=0.3,chat=0.7` into shares that sum to 1; ValueError says what is wrong."""
    shares: dict[str, float] = {}
    for part in text.split(","):
        name, equals, value = part.strip().partition("=")
        if name not in known:
            raise ValueError(f"no class {name!r}: {', '.join(sorted(known))}")
        if name in shares:
            raise ValueError(f"{name} is there twice")
        try:
            shares[name] = float(value) if equals else 1.0
        except ValueError:
            raise ValueError(f"{name}={value}: not a number") from None
        if not 0 <= shares[name] < float("inf"):
            raise ValueError(f"{name}={value}: a share is not negative")
    total = sum(shares.values())
    if not total:
        raise ValueError("all shares are 0")
    return {name: share / total for name, share in shares.items() if share}


def deal(shares: Mapping[str, float], start: float = 0.0) -> Iterator[str]:
    """Yield classes for ever, in these shares: any stretch has nearly its due of each.

    The multiples of the golden ratio fill the unit interval evenly. Drawn independently, a rare
    class would be missing from short steps.
    """
    names, ends = list(shares), list(accumulate(shares.values()))
    point = start
    while True:
        point = (point + _GOLDEN) % 1.0
        yield next((n for n, end in zip(names, ends, strict=True) if point < end), names[-1])
