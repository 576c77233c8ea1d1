"""Metrics of a new version of the draft that is tried, read at scrape time."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from rayspec.routing.trial import Comparison, State, Trial

__all__ = ["TrialCollector"]


_GAINS: tuple[tuple[str, str, Callable[[Comparison], float]], ...] = (
    ("gain", "Tokens per step that the new draft yields more.", lambda found: found.gain),
    ("gain_low", "Its lower bound, at three standard errors.", lambda found: found.low),
    ("gain_high", "Its upper bound, at three standard errors.", lambda found: found.high),
)


class TrialCollector(Collector):
    """Exports how the versions compare, as this ingress replica saw them."""

    def __init__(self, trial: Trial) -> None:
        self._trial = trial

    def collect(self) -> Iterable[Metric]:
        """Yield the metrics now."""
        trial = self._trial
        state = GaugeMetricFamily(
            "rayspec_trial_state", "1 for what has become of the new draft.", labels=["state"]
        )
        for each in State:
            state.add_metric([str(each)], float(trial.state is each))
        yield state
        requests = CounterMetricFamily(
            "rayspec_trial_requests", "Requests that a version drafted for.", labels=["version"]
        )
        for version, count in zip(("old", "new"), trial.requests(), strict=True):
            requests.add_metric([version], count)
        yield requests
        found = trial.comparison()
        for name, text, of in _GAINS:
            family = GaugeMetricFamily(f"rayspec_trial_{name}", text)
            if found is not None:
                family.add_metric([], of(found))
            yield family
