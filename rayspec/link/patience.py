"""When a step waits for the draft's reply: what steps without one teach the next ones."""

from __future__ import annotations

from typing import Final

__all__ = ["MOST_SKIPPED", "Patience"]

# Steps that a draft which never answers in time is left alone for, between two that wait.
MOST_SKIPPED: Final = 256


class Patience:
    """Decides for each step that wants drafts whether it waits, of one attachment.

    After a miss, a wait of a whole deadline in vain, the next `penalty` steps do not wait; then one
    does again. A miss doubles the penalty (1, 2, 4, … 256), a reply in time halves it and ends the
    skipping. So does a draft that is seen to have answered the newest earlier step, but only once
    until a reply comes in time again: a draft may keep up and still be late every time.

    So a single hiccup costs one deadline, and a draft that is always too slow at most the 257th
    part of one per step in the long run. `rayspec.ops.fetch` keeps to the same rule on the device.
    """

    def __init__(self) -> None:
        self.lagging = False  # the newest step that wanted drafts got none
        self._left = 0
        self._penalty = 1
        self._believed = False  # that it caught up, since the newest reply in time

    def waits(self, *, caught_up: bool) -> bool:
        """Whether the next step waits; `caught_up`: the newest earlier one is answered."""
        if self._left and caught_up and not self._believed:
            self._left, self._believed = 0, True
        return not self._left

    def learn(self, *, in_time: bool) -> None:
        """Take up whether a reply was there, at the latest when the step's wait was over."""
        self.lagging = not in_time
        if in_time:
            self._left, self._believed = 0, False
            self._penalty = max(self._penalty // 2, 1)
        elif self._left:
            self._left -= 1
        else:
            self._left = self._penalty
            self._penalty = min(self._penalty * 2, MOST_SKIPPED)
