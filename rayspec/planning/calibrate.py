"""Measures a running application over its HTTP API and fits what planning needs to know of it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from math import inf
from pathlib import Path
from typing import Any, Final

from tqdm import tqdm

from rayspec.errors import ConfigError
from rayspec.planning import calibrate_fit as fit
from rayspec.planning.calibrate_cells import Cell, Depth, StepCell, plan
from rayspec.planning.calibrate_client import Client, sample_sum
from rayspec.planning.calibrate_limits import Limits
from rayspec.planning.calibrate_machine import hardware, versions
from rayspec.planning.calibrate_measure import Meter, Result
from rayspec.planning.calibrate_partial import PartialFile
from rayspec.planning.calibrate_prompts import Prompt
from rayspec.planning.calibrate_subject import Subject, meet
from rayspec.planning.calibrate_watch import Effort
from rayspec.planning.calibration import Calibration, LaneProfile
from rayspec.routing.cost_model import StepPoint, StepTimes
from rayspec.routing.types import Lane

__all__ = ["Options", "Outcome", "calibrate"]

_EFFORT: Final[Mapping[Depth, Effort]] = {
    "quick": Effort(),
    "full": Effort(steps=32, seconds=2.0, prefills=2, answer_tokens=256),
}
_GIVE_UP_AFTER: Final = 3
# Relative error of a fit from which on the machine was hardly idle.
_SCATTER: Final = 0.1
_DRAFT_TIMES: Final[Sequence[tuple[str, Mapping[str, str]]]] = (
    ("rayspec_draft_device_round_us", {"value": "p50"}),
    ("rayspec_draft_server_draft_p50_us", {}),
)


@dataclass(frozen=True, slots=True)
class Options:
    """What to measure; without `tiers` a few draft lengths, without `budget_s` all cells.

    `effort` is the depth's own unless given; `notes` are kept in the file.
    """

    url: str
    out: Path
    prompts: Sequence[Prompt]
    depth: Depth = "full"
    limits: Limits = field(default_factory=Limits)
    tiers: tuple[int, ...] = ()
    budget_s: float | None = None
    progress: bool = True
    effort: Effort | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """A calibration, and what its user should know about it, a line each."""

    calibration: Calibration
    remarks: Sequence[str]


async def calibrate(options: Options, client: Client | None = None) -> Outcome:
    """Measure the application that runs at `options.url`, write `options.out`, and return it.

    What was measured before a failure or an interruption is kept beside `options.out`: the same
    call goes on from there.
    """
    if not options.out.resolve().parent.is_dir():
        raise ConfigError("out", str(options.out), "its folder does not exist")
    client = client or Client(options.url)
    try:
        return await _Calibration(options, client).run()
    finally:
        await client.close()


class _Calibration:
    def __init__(self, options: Options, client: Client) -> None:
        self._options = options
        self._client = client
        self._began = time.monotonic()

    async def run(self) -> Outcome:
        options = self._options
        subject = await meet(self._client, options.prompts)
        if options.tiers and options.tiers[-1] > subject.k_max:
            raise ConfigError(
                "k", options.tiers[-1], f"the application drafts {subject.k_max} tokens at most"
            )
        cells = plan(
            {lane: options.limits.of(lane).max_num_seqs for lane in subject.lanes},
            tuple(dict.fromkeys(prompt.workload_class for prompt in subject.prompts)),
            depth=options.depth,
            k_max=subject.k_max,
            max_len=subject.max_len,
            tiers=options.tiers,
        )
        identity: Mapping[str, Any] = {
            "model": subject.model,
            "lanes": subject.lanes,
            "k_max": subject.k_max,
            "draft": options.limits.draft,
            "hardware": hardware(),
            "versions": versions(),
            "depth": options.depth,
            "prompts": [prompt.body for prompt in subject.prompts],
        }
        partial = PartialFile(options.out, identity)
        effort = options.effort or _EFFORT[options.depth]
        meter = Meter(self._client, subject, effort)
        results = await self._measure(cells, meter, partial)
        outcome = await self._conclude(subject, results)
        outcome.calibration.save(options.out)
        partial.remove()
        return outcome

    async def _measure(
        self, cells: Sequence[Cell], meter: Meter, partial: PartialFile
    ) -> list[tuple[Cell, Result]]:
        results: list[tuple[Cell, Result]] = []
        too_many: dict[Lane, int] = {}
        failures = 0
        with tqdm(cells, unit="cell", disable=not self._options.progress) as bar:
            for number, cell in enumerate(bar):
                if isinstance(cell, StepCell) and cell.batch >= too_many.get(cell.lane, inf):
                    continue
                result = partial.get(cell)
                if result is None:
                    if self._over(cells[number:]):
                        break
                    bar.set_postfix_str(_label(cell), refresh=True)
                    result = await _patiently(meter, cell)
                    partial.put(cell, result)
                results.append((cell, result))
                if isinstance(cell, StepCell) and "full" in result:
                    too_many[cell.lane] = cell.batch
                failures = failures + 1 if "failed" in result and "full" not in result else 0
                if failures == _GIVE_UP_AFTER:
                    raise ConfigError(
                        "url",
                        self._options.url,
                        f"one cell after another fails ({result['failed']}); the same command goes "
                        "on from here once the application answers",
                    )
        return results

    def _over(self, left: Sequence[Cell]) -> bool:
        """Whether the time is up; an error if what was measured so far is not enough."""
        budget = self._options.budget_s
        if budget is None or time.monotonic() - self._began < budget:
            return False
        needed = sum(getattr(cell, "round", 0) == 0 for cell in left)
        if needed:
            raise ConfigError(
                "budget_s",
                budget,
                f"{needed} cells that are needed are left; run the same command again to go on",
            )
        return True

    async def _conclude(self, subject: Subject, results: fit.Results) -> Outcome:
        scrape = await self._client.metrics()
        residuals: dict[str, float] = {}
        lanes = {}
        for lane in subject.lanes:
            steps = fit.steps(results, lane)
            alone = StepTimes(StepPoint(s.batch, s.k, s.context, s.seconds) for s in steps)
            prefill, overhead, error = fit.prefill(results, lane)
            residuals |= {f"{lane} steps": fit.residual(steps), f"{lane} prefill": error}
            limits = self._options.limits.of(lane)
            mixing, wait_steps, busy = fit.mixing(results, lane, prefill, overhead)
            lanes[lane] = LaneProfile(
                steps=steps,
                prefill=prefill,
                max_num_seqs=min(limits.max_num_seqs, self._seats(results, lane)),
                chunk_tokens=limits.chunk_tokens,
                contention=fit.contention(results, lane, alone),
                mixing=mixing,
                wait_steps=wait_steps,
                overhead_s=overhead,
                busy_overhead_s=busy,
                gpus=limits.gpus,
            )
        tiers = {cell.k for cell, _ in results if isinstance(cell, StepCell)}
        draft_us = (sample_sum(scrape, name, labels) for name, labels in _DRAFT_TIMES)
        calibration = Calibration(
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            model=subject.model,
            draft=self._options.limits.draft,
            hardware=hardware(),
            versions=versions(),
            k_tiers=sorted(tiers),
            lanes=lanes,
            classes=fit.classes(results, subject.k_max),
            draft_s=next((us / 1e6 for us in draft_us if us > 0), None),
            residuals=residuals,
            notes=list(self._options.notes),
        )
        others = sample_sum(scrape, "rayspec_requests_total") - subject.answered
        others -= self._client.requests
        return Outcome(calibration, self._remarks(results, residuals, others))

    def _seats(self, results: fit.Results, lane: Lane) -> int:
        """Return how many streams decode together, as far as it was seen."""
        limit = self._options.limits.of(lane).max_num_seqs
        full = any(
            isinstance(cell, StepCell) and cell.lane is lane and "full" in result
            for cell, result in results
        )
        return fit.largest_batch(results, lane) if full else limit

    def _remarks(
        self, results: fit.Results, residuals: Mapping[str, float], others: float
    ) -> list[str]:
        remarks = []
        if not self._options.limits.known:
            remarks.append(
                "how many sequences an engine takes is not known, 16 assumed: name the "
                "application's file with --config"
            )
        if failed := [result["failed"] for _, result in results if "failed" in result]:
            remarks.append(f"{len(failed)} of {len(results)} cells gave nothing: {failed[0]}")
        if scattered := [name for name, error in residuals.items() if error > _SCATTER]:
            remarks.append(
                f"what was measured scatters ({', '.join(scattered)}): was the machine busy? A "
                "full calibration looks three times"
            )
        if others > 0:
            remarks.append(f"{others:.0f} requests of others ran meanwhile: times are too long")
        return remarks


async def _patiently(meter: Meter, cell: Cell) -> Result:
    """Measure a cell, twice if need be: a lane may be away for a moment."""
    result = await meter.measure(cell)
    if "failed" in result and "full" not in result:
        return await meter.measure(cell)
    return result


def _label(cell: Cell) -> str:
    told = {name: getattr(cell, name) for name in cell.__slots__ if name != "round"}
    return " ".join(f"{name}={value}" for name, value in told.items())
