"""One run of the engine benchmark, and what it writes."""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Any

from load_tests.bench import memory, plot, report, table
from load_tests.bench.controller import Controller
from load_tests.bench.models import Models, prepare
from load_tests.bench.options import parse
from load_tests.bench.plan import Group, pack
from load_tests.bench.probe import Gpu, probe
from load_tests.bench.settings import VERIFY_ONLY, Settings
from load_tests.bench.systems import NOTES

__all__ = ["main"]

logger = logging.getLogger(__name__)

USABLE = 0.95  # of a GPU's memory


def main(description: str, argv: list[str] | None = None) -> int:
    """Measure, write results as they come, and print the table; 1 if nothing was measured."""
    settings = parse(description, argv)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(message)s")
    settings.out.mkdir(parents=True, exist_ok=True)
    gpus = [] if settings.device == "cpu" else _gpus(settings)
    models = prepare(settings)
    groups = _groups(settings, models, gpus)
    run = Run(settings, models, gpus, groups)
    controller = Controller(settings, models, run.add)
    run.watch(controller)
    try:
        controller.run(groups)
    except KeyboardInterrupt:
        logger.warning("interrupted")
    finally:
        controller.close()
    final = run.write()
    text = table.render(final)
    (settings.out / "table.txt").write_text(text)
    sys.stdout.write(text)
    if not plot.draw(final, settings.out / "plot.png"):
        logger.warning("no plot: it needs matplotlib and a system beside plain")
    return 0 if run.samples else 1


class Run:
    """Holds the samples, and writes everything known after each."""

    def __init__(
        self, settings: Settings, models: Models, gpus: list[Gpu], groups: list[Group]
    ) -> None:
        self.samples: list[dict[str, Any]] = []
        self._settings = settings
        self._models = models
        self._gpus = gpus
        self._groups = groups
        self._controller: Controller | None = None
        self._started = time.monotonic()

    def watch(self, controller: Controller) -> None:
        """Take facts and failures from `controller`."""
        self._controller = controller

    def add(self, sample: dict[str, Any]) -> None:
        """Take up one measurement and write the report so far."""
        bandwidth = self._gpus[-1].copy_bytes_per_s if self._gpus else 0.0
        if bandwidth and sample["system"] == "rayspec":
            draft = self._models.drafts[sample["draft_model"]]
            floor = 1e6 * sample["k"] * draft.step_bytes / bandwidth
            sample["draft"]["floor_us"] = floor
        self.samples.append(sample)
        self.write()
        logger.info(
            "round %d %s %s K=%d b=%d a=%g T=%g: %.2f ms/token, %.2f tokens/step",
            sample["round"] + 1,
            *(sample[name] for name in report.KEY),
            sample["ms_per_token"],
            sample["tokens_per_step"],
        )

    def write(self) -> dict[str, Any]:
        """Write report.json and return it."""
        settings, controller = self._settings, self._controller
        names = [*settings.systems, VERIFY_ONLY]
        gpus = {n: settings.gpus("rayspec" if n == VERIFY_ONLY else n) for n in names}
        rows = report.results(self.samples, gpus)
        full = {
            "title": title(settings, self._gpus),
            "remarks": remarks(settings, self._groups),
            "settings": settings.facts(),
            "gpus": [vars(gpu) for gpu in self._gpus],
            "seconds": round(time.monotonic() - self._started, 1),
            "engines": controller.facts if controller else {},
            "failures": controller.failures if controller else {},
            "best": report.best_k(rows),
            "losses": report.losses(rows),
            "results": rows,
            "samples": self.samples,
        }
        partial = settings.out / "report.json.partial"
        partial.write_text(json.dumps(full, indent=1, default=str) + "\n")
        partial.replace(settings.out / "report.json")
        return full


def title(settings: Settings, gpus: list[Gpu]) -> str:
    """Return what was measured on what, in one line."""
    hardware = " and ".join(dict.fromkeys(gpu.name for gpu in gpus)) or "CPU"
    drafts = ", ".join(settings.draft_shapes)
    text = f"{settings.target_shape} target TP{settings.tp}, draft {drafts}"
    if settings.device == "cuda":
        text += f" on cuda:{settings.draft_device}, {hardware}"
        if settings.same_gpu_link:
            text += " (ONE GPU SHARED: LOWER BOUND)"
    else:
        text = f"tiny target and draft, {hardware}"
    return f"{text}, {settings.input_tokens} in / {settings.output_tokens} out"


def remarks(settings: Settings, groups: list[Group]) -> list[str]:
    """Return what a reader has to know before the numbers."""
    lines = [f"{name}: {NOTES[name]}" for name in settings.systems]
    if settings.trace:
        lines.append(f"{VERIFY_ONLY}: {NOTES[VERIFY_ONLY]}")
    if settings.same_gpu_link:
        lines.append(
            "One GPU is shared by target and draft: they take turns on it, and the link crosses the"
            " host instead of NVLink. rayspec's figures are a lower bound for two GPUs."
        )
    elif settings.apart:
        where = ", ".join(f"{name} on {_list(gpus)}" for name, gpus in settings.apart.items())
        lines.append(
            f"The target is on GPU {_list(settings.target_devices)}, {where}: of one kind, and one"
            " system runs at a time."
        )
    if settings.shares_gpu and not settings.same_gpu_link:
        lines.append("The draft shares a GPU with a tensor-parallel rank of the target.")
    if settings.device == "cuda" and settings.real:
        lines.append("Real text; answers run to the full length, beyond where they would end.")
    if not settings.real:
        lines.append(
            f"Dummy weights. Synthetic acceptance A: every draft is accepted with the probability"
            f" with which {settings.acceptance_k} drafts yield A tokens a step, at any K."
        )
    lines.append(
        f"Rounds: {settings.rounds}; engines alive together, turns interleaved: "
        + "; ".join(", ".join(variant.name for variant in group.variants) for group in groups)
    )
    if len(groups) > 1 and not all(group.interleaved for group in groups):
        lines.append("NOT INTERLEAVED: these engines do not fit into the memory together.")
    return lines


def _list(devices: tuple[int, ...]) -> str:
    return ", ".join(map(str, devices))


def _gpus(settings: Settings) -> list[Gpu]:
    """Return the target's GPUs, then the draft's."""
    devices = [*settings.target_devices, settings.draft_device]
    each = dict(zip(sorted(set(devices)), probe(sorted(set(devices))), strict=True))
    return [each[device] for device in devices]


def _groups(settings: Settings, models: Models, gpus: list[Gpu]) -> list[Group]:
    variants = settings.variants()
    plain = next((variant for variant in variants if variant.system == "plain"), None)
    if settings.device == "cpu":
        return [Group(tuple(variants))]
    needs = {variant: memory.needs(settings, models, variant) for variant in variants}
    capacity = int(min(gpu.total_bytes for gpu in gpus) * USABLE)
    if settings.memory_gib is not None:
        capacity = int(settings.memory_gib * memory.GIB)
    return pack(variants, needs, capacity, plain)
