"""Runs the plan: starts what fits together, takes turns, and hands on every measurement at once."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from load_tests.bench import systems
from load_tests.bench.models import Model, Models
from load_tests.bench.plan import Cell, Group, Turn, Variant, interleave
from load_tests.bench.process import (
    DraftProcess,
    EngineProcess,
    SystemFailed,
    TurnFailed,
    visible_devices,
)
from load_tests.bench.readings import draft_reading, link_reading
from load_tests.bench.settings import Settings
from rayspec.draft import client
from rayspec.errors import LinkError

__all__ = ["Controller"]

logger = logging.getLogger(__name__)

WARM_TOKENS = 24


class Controller:
    """Measures one group of engines after the other until the rounds or the time are up."""

    def __init__(
        self,
        settings: Settings,
        models: Models,
        record: Callable[[dict[str, Any]], None],
    ) -> None:
        self._settings = settings
        self._models = models
        self._prompts = models.prompts
        self._record = record
        self._end = time.monotonic() + settings.budget_s
        self._engines: dict[Variant, EngineProcess] = {}
        self._drafts: dict[str, DraftProcess] = {}
        self._warm: set[tuple[Turn, Cell]] = set()
        self.facts: dict[str, Any] = {}
        self.failures: dict[str, str] = {}

    @property
    def out_of_time(self) -> bool:
        """Whether the budget is spent."""
        return time.monotonic() > self._end

    def run(self, groups: Sequence[Group]) -> None:
        """Measure all groups; each has the same share of what time is left."""
        for number, group in enumerate(groups):
            left = self._end - time.monotonic()
            if left <= 0:
                logger.warning("out of time before %s", [v.name for v in group.variants])
                return
            until = time.monotonic() + left / (len(groups) - number)
            try:
                self._start(group)
                self._measure(number, group, until)
            finally:
                self.close()

    def _start(self, group: Group) -> None:
        logger.info("starting %s", ", ".join(variant.name for variant in group.variants))
        started = time.monotonic()
        if any(variant.system == "rayspec" for variant in group.variants):
            self._start_drafts()
        for variant in group.variants:
            self._engines[variant] = EngineProcess(
                systems.engine_args(self._settings, self._models, variant),
                self._environment(variant),
                self._log(variant.name),
            )
        for variant in group.variants:
            limit = min(self._settings.start_timeout_s, max(self._end - time.monotonic(), 1.0))
            try:
                self.facts[variant.name] = self._engines[variant].ready(limit)
            except SystemFailed as failure:
                self._fail(variant, failure)
        logger.info("started after %.0f s", time.monotonic() - started)

    def _start_drafts(self) -> None:
        drafts: dict[str, Model | None] = dict(self._models.drafts)
        if self._settings.trace:
            drafts[""] = None
        for number, (name, model) in enumerate(drafts.items()):
            self._drafts[name] = DraftProcess(
                draft_options(self._settings, model, self._prompts.vocab_size),
                self._draft_environment(),
                self._log(f"draft-{number}"),
            )

    def _environment(self, variant: Variant) -> dict[str, str]:
        env = systems.environment(self._settings, variant)
        if self._settings.device == "cuda":
            env["CUDA_VISIBLE_DEVICES"] = visible_devices(self._settings.devices(variant.system))
        return env

    def _draft_environment(self) -> dict[str, str]:
        if self._settings.device == "cpu":
            return {"OMP_WAIT_POLICY": "passive"}
        env = {"CUDA_VISIBLE_DEVICES": visible_devices([self._settings.draft_device])}
        env["VLLM_CACHE_ROOT"] = str(self._settings.cache / "draft")
        return env | systems.link_environment(self._settings, "draft")

    def _log(self, name: str) -> Path:
        return self._settings.out / f"{name}.log"

    def _fail(self, variant: Variant, failure: Exception) -> None:
        logger.error("%s: %s", variant.name, failure)
        self.failures[variant.name] = str(failure)
        self._engines.pop(variant).close()

    def _measure(self, group_number: int, group: Group, until: float) -> None:
        turns = [turn for variant in group.variants for turn in self._settings.turns(variant)]
        dropped: set[Turn] = set()
        for number, turn in interleave(turns, self._settings.rounds):
            if time.monotonic() > until:
                logger.warning("time is up in round %d of %d", number + 1, self._settings.rounds)
                return
            engine = self._engines.get(turn.variant)
            if engine is None or turn in dropped:
                continue
            try:
                self._take_turn(engine, turn, number, group_number, until)
            except (TurnFailed, LinkError) as failure:
                name = " ".join(filter(None, (turn.system, turn.draft, f"K={turn.k}")))
                logger.error("%s: %s", name, failure)
                self.failures[name] = str(failure)
                dropped.add(turn)
            except SystemFailed as failure:
                self._fail(turn.variant, failure)

    def _take_turn(
        self, engine: EngineProcess, turn: Turn, number: int, group: int, until: float
    ) -> None:
        try:
            self._measure_cells(engine, turn, number, group, until)
        finally:
            if turn.variant.system == "rayspec":
                engine.call("detach", timeout_s=30.0)

    def _measure_cells(
        self, engine: EngineProcess, turn: Turn, number: int, group: int, until: float
    ) -> None:
        address = self._attach(engine, turn)
        acceptance = None
        for cell in self._settings.cells(turn):
            if time.monotonic() > until:
                break
            if cell.acceptance and cell.acceptance != acceptance:
                acceptance = cell.acceptance
                engine.call("set_acceptance", self._settings.probability(acceptance))
            where = {"system": turn.system, "draft_model": turn.draft, "k": turn.k}
            where |= {"round": number, "group": group, "batch": cell.batch}
            where |= {"acceptance": cell.acceptance, "temperature": cell.temperature}
            self._record(where | self._sample(engine, turn, cell, number, address))

    def _attach(self, engine: EngineProcess, turn: Turn) -> tuple[str, int] | None:
        if turn.variant.system != "rayspec":
            return None
        draft = self._drafts[turn.draft]
        address = draft.address(self._settings.start_timeout_s)
        engine.call("attach", address)
        engine.call("set_k", turn.k)
        # The first step on a fresh link tells the draft everything, and the new K comes after it.
        engine.call("generate", self._prompts.take(1, seed=-1), WARM_TOKENS, 0.0)
        return address

    def _sample(
        self,
        engine: EngineProcess,
        turn: Turn,
        cell: Cell,
        number: int,
        address: tuple[str, int] | None,
    ) -> dict[str, Any]:
        prompts = self._prompts.take(cell.batch, seed=number)
        if (turn, cell) not in self._warm:
            self._warm.add((turn, cell))
            engine.call("generate", prompts, WARM_TOKENS, cell.temperature)
        arguments = prompts, self._settings.output_tokens, cell.temperature
        if address is None:
            plain: dict[str, Any] = engine.call("measure", *arguments)
            return plain
        before, drafted = engine.call("status"), client.stats(address)
        sample: dict[str, Any] = engine.call("measure", *arguments)
        sample["link"] = link_reading(before, engine.call("status"), sample["rows"], turn.k)
        sample["draft"] = draft_reading(drafted, client.stats(address))
        return sample

    def close(self) -> None:
        """Stop all processes; idempotent."""
        processes: Iterable[EngineProcess | DraftProcess] = [
            *self._engines.values(),
            *self._drafts.values(),
        ]
        for process in processes:
            process.close()
        self._engines.clear()
        self._drafts.clear()
        self._warm.clear()


def draft_options(settings: Settings, draft: Model | None, vocab_size: int) -> list[str]:
    """Return the options of `python -m rayspec.draft` for a model, or for random drafts."""
    slots = str(max(settings.batches))
    options = ["--slots", slots, "--max-len", str(settings.max_model_len)]
    options += ["--target-slots", str(settings.max_num_seqs)]
    # A round is built for each of these lengths, and for no other.
    options += ["--k-max", str(max(settings.ks)), "--k-tiers", *map(str, settings.ks)]
    if settings.device == "cuda":
        options += ["--device", "cuda:0"]
    if draft is None:
        return [*options, "--kind", "random", "--vocab-size", str(vocab_size)]
    options += ["--kind", "model", "--model", str(draft.folder)]
    if settings.device == "cuda":
        options += ["--engine", "vllm", "--load-format", "auto" if settings.real else "dummy"]
        options += ["--sampling", settings.sampling, "--top-m", str(systems.TOP_M)]
    return [*options, *settings.draft_options]
