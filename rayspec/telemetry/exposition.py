"""Merges the Prometheus expositions of several processes into one valid exposition.

Parsing a scrape of vLLM takes tens of milliseconds: call `merge` from a thread.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from prometheus_client import generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

__all__ = ["UP", "Source", "merge"]

logger = logging.getLogger(__name__)

UP = "rayspec_source_up"


@dataclass(frozen=True, slots=True)
class Source:
    """The exposition of one process, None if it gave none, and the labels that tell it apart."""

    text: str | None
    labels: Mapping[str, str] = field(default_factory=dict)


def merge(sources: Iterable[Source]) -> str:
    """Return one exposition of all sources, each sample with its source's labels.

    A sample's own label of the same name is kept as `exported_…`, as Prometheus does. The first
    source decides type and help of a family. `rayspec_source_up` says which sources could be read.
    """
    merged = _Merged()
    up = GaugeMetricFamily(UP, "Whether the metrics of a process could be read.")
    for source in sources:
        labels = dict(source.labels)
        families = _parse(source)
        up.add_sample(UP, labels, 0.0 if families is None else 1.0)
        for family in families or ():
            merged.add(family, labels)
    merged.add(up, {})
    return generate_latest(merged).decode("utf-8")


class _Merged(Collector):
    """Families by the name under which they are exposed, without duplicate series."""

    def __init__(self) -> None:
        self._families: dict[str, Metric] = {}
        self._seen: set[tuple[str, frozenset[tuple[str, str]]]] = set()

    def collect(self) -> Iterable[Metric]:
        """Return the families in the order in which they were first met."""
        return self._families.values()

    def add(self, family: Metric, labels: Mapping[str, str]) -> None:
        """Add the samples of one source's family."""
        # The parser strips `_total`: a counter x_total and a gauge x are different families.
        name = f"{family.name}_total" if family.type == "counter" else family.name
        known = self._families.get(name)
        if known is None:
            known = Metric(family.name, family.documentation, family.type)
            self._families[name] = known
        elif known.type != family.type:
            logger.warning("metric %s is a %s here and a %s there", name, known.type, family.type)
            return
        for sample in family.samples:
            labelled = _label(sample, labels)
            series = (labelled.name, frozenset(labelled.labels.items()))
            if series not in self._seen:
                self._seen.add(series)
                known.samples.append(labelled)


def _parse(source: Source) -> list[Metric] | None:
    if source.text is None:
        return None
    try:
        return list(text_string_to_metric_families(source.text))
    except ValueError as error:
        logger.warning("metrics of %s cannot be read: %s", dict(source.labels), error)
        return None


def _label(sample: Sample, labels: Mapping[str, str]) -> Sample:
    own = {(f"exported_{k}" if k in labels else k): v for k, v in sample.labels.items()}
    return sample._replace(labels={**own, **labels})
