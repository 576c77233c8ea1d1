"""What one run measures, from the command line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from load_tests.bench.plan import Cell, Turn, Variant
from load_tests.bench.rates import acceptance_for

__all__ = ["SYSTEMS", "Settings"]

SYSTEMS = ("plain", "rayspec", "colocated", "ngram", "colocated-v2")
VERIFY_ONLY = "verify-only"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """One run. An acceptance of 0 stands for texts and drafts as they come."""

    systems: tuple[str, ...]
    batches: tuple[int, ...]
    acceptances: tuple[float, ...]
    acceptance_k: int
    ks: tuple[int, ...]
    colocated_ks: tuple[int, ...]
    ngram_ks: tuple[int, ...]
    temperatures: tuple[float, ...]
    target_shape: str
    draft_shapes: tuple[str, ...]
    tp: int
    device: str
    target_devices: tuple[int, ...]
    own_devices: Mapping[str, tuple[int, ...]]  # of systems that are not on the target's
    draft_device: int
    input_tokens: int
    output_tokens: int
    rounds: int
    trace: bool
    budget_s: float
    start_timeout_s: float
    draft_options: tuple[str, ...]
    sampling: str
    deadline_ms: float
    memory_gib: float | None
    out: Path
    cache: Path
    seed: int = 0

    @property
    def max_num_seqs(self) -> int:
        """Sequences of an engine; rayspec declares each width for a batch size of its own."""
        return max(*self.batches, len(self.ks) + 1)

    @property
    def real(self) -> bool:
        """Whether texts and drafts are real, so that acceptance is what it is."""
        return self.acceptances == (0.0,)

    @property
    def shares_gpu(self) -> bool:
        """Whether the draft runs on a GPU of the target."""
        return self.device == "cuda" and self.draft_device in self.target_devices

    @property
    def same_gpu_link(self) -> bool:
        """Whether both ends of the link are on one GPU; the target's is on its first."""
        return self.device == "cuda" and self.draft_device == self.target_devices[0]

    @property
    def apart(self) -> dict[str, tuple[int, ...]]:
        """The systems that run on other GPUs than rayspec's target, and where."""
        if self.device == "cpu":
            return {}
        return {
            system: self.devices(system)
            for system in self.systems
            if self.devices(system) != self.target_devices
        }

    def devices(self, system: str) -> tuple[int, ...]:
        """Return the GPUs of a system's engine."""
        return self.own_devices.get(system, self.target_devices)

    @property
    def max_model_len(self) -> int:
        """Room for prompt, answer and the drafts beyond its end, in whole blocks."""
        drafts = max(self.ks + self.colocated_ks + self.ngram_ks)
        return -(-(self.input_tokens + self.output_tokens + drafts + 1) // 64) * 64

    def probability(self, acceptance: float) -> float:
        """Return how likely a draft is accepted: `acceptance` is of steps of `acceptance_k`."""
        return acceptance_for(acceptance, self.acceptance_k)

    def gpus(self, system: str) -> int:
        """Return the GPUs that a system takes, the draft's included."""
        devices = set(self.devices(system))
        if system == "rayspec":
            devices.add(self.draft_device)
        return len(devices)

    def variants(self) -> list[Variant]:
        """Return the engines; rayspec changes K and draft on the way, others need one for each."""
        made = []
        for system in self.systems:
            if system == "plain":
                made.append(Variant(system))
            elif system == "rayspec":
                made.append(Variant(system, max(self.ks)))
            elif system == "ngram":
                made.extend(Variant(system, k) for k in self.ngram_ks)
            else:
                made += [
                    Variant(system, k, name)
                    for name in self.draft_shapes
                    for k in self.colocated_ks
                ]
        return made

    def turns(self, variant: Variant) -> list[Turn]:
        """Return what is measured on an engine in one round."""
        if variant.system != "rayspec":
            return [Turn(variant.system, variant, variant.k, variant.draft)]
        drafts = [("rayspec", name) for name in self.draft_shapes]
        if self.trace:
            drafts.append((VERIFY_ONLY, ""))
        return [Turn(system, variant, k, draft) for system, draft in drafts for k in self.ks]

    def cells(self, turn: Turn) -> list[Cell]:
        """Return the measurements of one turn; plain decoding knows no acceptance."""
        acceptances = (0.0,) if turn.system == "plain" else self.acceptances
        return [
            Cell(batch, acceptance, temperature)
            for batch in self.batches
            for acceptance in acceptances
            for temperature in self.temperatures
        ]

    def facts(self) -> dict[str, Any]:
        """Return the settings as plain values."""
        return {
            name: str(value) if isinstance(value, Path) else value
            for name, value in asdict(self).items()
        }
