"""Keeps the figures of a run per step of its shape, over all workers, and writes the result."""

from __future__ import annotations

import json
import sys
import time
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import locust
from locust.env import Environment
from locust.runners import MasterRunner, WorkerRunner

from load_tests.traffic.answer import Answer
from load_tests.traffic.options import shown, slo_of
from load_tests.traffic.result import StepTimes, fold
from load_tests.traffic.tally import Slo, Tally

if TYPE_CHECKING:
    from load_tests.load_shapes import Step

__all__ = ["Collector", "Live"]

_STEP = "rayspec-step"
_REPORT = "rayspec"
# After the last step, and before the first: what arrives then belongs to no load.
_NO_STEP = -1


@dataclass(frozen=True, slots=True)
class Live:
    """What a process that sends requests knows of the step.

    `rate` is that of one user; after the last step nothing new is to be sent.
    """

    index: int = _NO_STEP
    rate: float | None = None
    over: bool = False


@dataclass(slots=True)
class _Times:
    step: Step
    began: float
    ended: float | None = None


class Collector:
    """One in every process of a run: workers count and report, the master adds up.

    Locust's own statistics are those of a whole run; these are kept apart per step.
    """

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._runner = environment.runner
        self._tally = Tally()
        self._steps: list[_Times] = []
        self._started = ""
        self._workers = 0
        self._planned: Sequence[Step] = ()
        self.live = Live()
        self.model = ""
        environment.events.report_to_master.add_listener(self._report)
        environment.events.worker_report.add_listener(self._reported)
        environment.events.worker_connect.add_listener(self._welcome)
        if self._runner is not None and not isinstance(self._runner, MasterRunner):
            self._runner.register_message(_STEP, self._told)

    @property
    def options(self) -> Namespace:
        """What the run was asked for; on a worker what the master was."""
        options: Namespace | None = self._environment.parsed_options
        assert options is not None
        return options

    @property
    def slo(self) -> Slo:
        """What a good answer is."""
        return slo_of(self.options)

    @property
    def patience_s(self) -> float:
        """How long users may take to finish."""
        return float(self._environment.stop_timeout)

    def workers(self) -> int:
        """Return how many other processes send the requests."""
        return self._runner.worker_count if isinstance(self._runner, MasterRunner) else 0

    def busy(self) -> bool:
        """Whether a user still waits for an answer."""
        return self._runner is not None and self._runner.user_count > 0

    def plan(self, steps: Sequence[Step]) -> None:
        """Note which steps are to come."""
        self._planned = tuple(steps)

    def begin(self, index: int, step: Step | None) -> None:
        """Begin a step, everywhere; None ends the last one."""
        now = time.perf_counter()
        if index == 0:
            self._steps, self._tally = [], Tally()
            self._workers = self.workers()
            self._started = datetime.now(UTC).isoformat(timespec="seconds")
        elif self._steps and self._steps[-1].ended is None:
            self._steps[-1].ended = now
        if step is not None:
            self._steps.append(_Times(step, now))
        assert self._runner is not None
        self._runner.send_message(_STEP, self._message(index, step))

    @staticmethod
    def _message(index: int, step: Step | None) -> dict[str, Any]:
        if step is None:
            return {"index": _NO_STEP, "rate": None, "over": True}
        rate = None if step.rate is None else step.rate / step.users
        return {"index": index, "rate": rate, "over": False}

    def _told(self, msg: Any, **_: Any) -> None:
        if msg.data["index"] == 0 and isinstance(self._runner, WorkerRunner):
            self._tally = Tally()
        self.live = Live(**msg.data)

    def _welcome(self, client_id: str, **_: Any) -> None:
        """Tell a worker that comes later which step it is."""
        if self._steps and self._steps[-1].ended is None and self._runner is not None:
            message = self._message(len(self._steps) - 1, self._steps[-1].step)
            self._runner.send_message(_STEP, message, client_id)

    def arrived(self, workload: str, lane: str, tokens: int) -> None:
        """Count tokens at the time they come."""
        self._tally.cells[self.live.index, workload, lane].counts["arrived"] += tokens

    def ended(
        self, workload: str, answer: Answer, step: int, prompt: str | None, text: str
    ) -> None:
        """Count an answer for the step in which it was sent; `prompt` identifies a greedy one."""
        cell = self._tally.cells[step, workload, answer.lane]
        cell.add(answer, self.slo, crossed=step != self.live.index)
        if prompt is not None and answer.error is None:
            self._tally.texts[prompt][text] += 1

    def _report(self, data: dict[str, Any], **_: Any) -> None:
        data[_REPORT] = self._tally.pack()
        self._tally = Tally()

    def _reported(self, data: dict[str, Any], **_: Any) -> None:
        if _REPORT in data:
            self._tally.merge(Tally.unpack(data[_REPORT]))

    def result(self) -> dict[str, Any]:
        """Return the result so far."""
        now = time.perf_counter()
        steps = [
            StepTimes(
                index,
                times.step.name,
                times.step.users,
                times.step.rate,
                times.step.warm_up,
                (times.ended or now) - times.began,
            )
            for index, times in enumerate(self._steps)
        ]
        options = self.options
        user = self._environment.user_classes[0]
        facts = {
            "label": options.label or options.speculation,
            "started": self._started,
            "host": self._environment.host or user.host,
            "model": self.model,
            "workers": self._workers,
            "locust": locust.__version__,
            "python": sys.version.split()[0],
            "options": shown(options),
        }
        return fold(self._tally, steps, self.slo, facts)

    def write(self) -> None:
        """Write the result where `--result` says, if anything was measured here."""
        path = self.options.result
        if not path or not self._steps or isinstance(self._runner, WorkerRunner):
            return
        if self._steps[-1].ended is None:
            self._steps[-1].ended = time.perf_counter()
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(json.dumps(self.result(), indent=1) + "\n", encoding="utf-8")

    def missing(self) -> list[str]:
        """Return the names of measured steps that are to come yet, or had no answer at all."""
        answered = {
            index for (index, _, _), cell in self._tally.cells.items() if cell.counts["requests"]
        }
        planned = self._planned or [times.step for times in self._steps]
        begun = len(self._steps)
        return [
            step.name
            for index, step in enumerate(planned)
            if not step.warm_up and (index >= begun or index not in answered)
        ]
