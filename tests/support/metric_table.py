"""The tables of docs/metrics.md, and what rayspec's collectors export, in one form."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from rayspec.draft.spec import DraftStats
from rayspec.routing import Lane
from rayspec.routing.names import CANDIDATE
from rayspec.routing.trial import Trial, TrialSpec
from rayspec.routing.types import LaneView, Outcome
from rayspec.telemetry.draft import DraftCollector
from rayspec.telemetry.lanes import LaneCollector
from rayspec.telemetry.link import LinkCollector
from rayspec.telemetry.metrics import IngressMetrics
from rayspec.telemetry.own_draft import OwnDraftCollector
from rayspec.telemetry.trial import TrialCollector

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "metrics.md"
# What a type adds to a metric's own labels.
_ZEROS: dict[str, Any] = {f.name: 0 for f in fields(DraftStats) if f.name != "on_device"}
_OF_TYPE = {"le", "quantile"}


@dataclass(frozen=True)
class Row:
    """One metric: its name as it is scraped, type, own labels in order, and help text."""

    name: str
    type: str
    labels: tuple[str, ...]
    text: str

    def __str__(self) -> str:
        labels = ", ".join(f"`{label}`" for label in self.labels)
        return f"| `{self.name}` | {self.type} | {labels} | {self.text} |"


def documented() -> list[Row]:
    """Return the rows of all tables with four columns."""
    rows: list[Row] = []
    for line in DOCUMENT.read_text().split("\n"):
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 4 and cells[0].startswith("`rayspec_"):
            labels = tuple(label.strip("` ") for label in cells[2].split(",") if label.strip())
            rows.append(Row(cells[0].strip("`"), cells[1], labels, cells[3]))
    return rows


def exported() -> list[Row]:
    """Return a row for every metric that ingress, lanes, link and draft export."""
    metrics = IngressMetrics()
    own = {
        metric._name: metric._labelnames
        for metric in vars(metrics).values()
        if hasattr(metric, "_labelnames")
    }
    views = {lane: LaneView(lane) for lane in Lane}
    status: Mapping[str, Any] = {
        "shards": [{"attached": True}],
        "drafted_per_pos": [1],
        "accepted_per_pos": [1],
    }
    collectors: list[Collector] = [
        LaneCollector(lambda: views),
        TrialCollector(tried()),
        LinkCollector(lambda: status),
        OwnDraftCollector("ngram", lambda: ([1], [1])),
        DraftCollector(lambda: DraftStats(**_ZEROS)),
    ]
    rows = [row(family, own[family.name]) for family in metrics.registry.collect()]
    for collector in collectors:
        rows += [row(family, labels_of(family)) for family in collector.collect()]
    return list(dict.fromkeys(rows))  # what tells of any draft is there once


def tried() -> Trial:
    """Return a trial that has seen enough to compare."""
    trial = Trial(TrialSpec())
    for number in range(10):
        draft = CANDIDATE if number % 2 else None
        outcome = Outcome("chat", Lane.SPECULATIVE, 1, 1, 1, 1, True, draft=draft)
        trial.observe("chat", outcome)
    return trial


def row(family: Metric, labels: Iterable[str]) -> Row:
    name = f"{family.name}_total" if family.type == "counter" else family.name
    return Row(name, family.type, tuple(labels), family.documentation)


def labels_of(family: Metric, without: Iterable[str] = ()) -> tuple[str, ...]:
    """Return the labels that a family's samples carry, but those in `without`."""
    found: dict[str, None] = {}
    for sample in family.samples:
        found |= dict.fromkeys(sample.labels)
    return tuple(label for label in found if label not in _OF_TYPE | set(without))
