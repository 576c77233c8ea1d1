"""A model that drafts in rounds on a device, for a draft server."""

from __future__ import annotations

from collections.abc import Callable

from rayspec.draft.counters import DraftCounters
from rayspec.draft.rounds.engine import RoundsEngine
from rayspec.draft.rounds.loop import RoundsLoop
from rayspec.draft.rounds.spec import RoundsSpec
from rayspec.draft.transport import cuda_is_there
from rayspec.draft.vllm_model.base import DraftModel

__all__ = ["RoundsDrafter"]


class RoundsDrafter:
    """A `DeviceDrafter`; the model is loaded when its loop starts."""

    def __init__(self, load: Callable[[], DraftModel], spec: RoundsSpec) -> None:
        self.spec = spec
        self._load = load

    def loop(self, counters: DraftCounters, *, k_max: int, max_slots: int) -> RoundsLoop:
        """Return a loop over an engine of its own."""
        engine = RoundsEngine(self._load, self.spec.serving(k_max=k_max, max_slots=max_slots))
        return RoundsLoop(engine, counters, cuda=cuda_is_there())
