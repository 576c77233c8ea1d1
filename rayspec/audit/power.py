"""How small a difference a test would find: no verdict of "no difference" means much without it.

The planted fault is the one that faulty verification makes: answers that follow the draft. In a
share of one lane's answers, every token is the commonest one of its position. What would become of
the statistic is found by drawing answers again from those that were seen.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from rayspec.audit.permutation import ENDED, Features, Rows, statistic

__all__ = ["POWER", "SHARES", "detectable", "typical"]

POWER = 0.8
SHARES = (0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0)
_TRIALS = 300


def typical(rows: Rows, length: int) -> list[int]:
    """Return the commonest token of each position."""
    padded = [[*row[:length], *[ENDED] * (length - len(row))] for row in rows]
    common = [Counter(column).most_common(1)[0][0] for column in zip(*padded, strict=True)]
    return common[: common.index(ENDED)] if ENDED in common else common


def detectable(features: Features, first: int, critical: float, *, seed: int = 0) -> float | None:
    """Return the smallest of `SHARES` that is found with a chance of `POWER`; None if none is.

    The last row of `features` is the typical answer; it is no sample. `critical` is the value that
    the statistic has to exceed.
    """
    counts, planted = features.counts[:-1], features.counts[-1]
    answers = len(counts)
    random = np.random.default_rng(seed)

    def draw(number: int) -> np.ndarray:  # [answers]: how often each is drawn
        return random.multinomial(number, np.full(answers, 1 / answers)).astype(np.float32)

    for share in SHARES:
        faulty = random.binomial(first, share, _TRIALS)
        ours = np.stack([draw(first - n) for n in faulty]) @ counts + faulty[:, None] * planted
        theirs = np.stack([draw(answers - first) for _ in faulty]) @ counts
        values = statistic(ours, theirs, first / answers)
        if (values > critical).mean() >= POWER:
            return share
    return None
