"""Checks a draft and a target: is the draft bound to it, does it fit, what would it gain here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from rayspec.audit.doctor_gather import machine_memory
from rayspec.distill import prompts
from rayspec.distill.acceptance import ClassAcceptance, measure
from rayspec.distill.encode import Encoder
from rayspec.distill.generate import Ask, TransformersGenerator
from rayspec.distill.spec import DRAFT_LENGTH
from rayspec.distill.speed import Gain, StepSeconds, best_gain, timed
from rayspec.distill.texts import Text, Texts
from rayspec.draft.identity import describe_difference, model_max_len
from rayspec.draft.manifest import DraftManifest, unbound
from rayspec.planning.memory import ModelShape, Numbers

__all__ = ["ClassCheck", "Finding", "PairReport", "ask", "facts", "judge", "thin"]

_SEQUENCES, _LENGTH = 16, 2048  # whose KV cache has to fit
_LOWER = 0.1  # acceptance below the recorded one that is worth a word


@dataclass(frozen=True, slots=True)
class Finding:
    """One fact about the pair; a `mismatch` forbids it."""

    what: str
    verdict: Literal["ok", "warning", "mismatch"]
    detail: str


@dataclass(frozen=True, slots=True)
class ClassCheck:
    """One class: what was measured here, what the draft's description says, and what it gains."""

    acceptance: ClassAcceptance
    recorded: float | None
    greedy: Gain | None
    sampled: Gain | None


@dataclass(frozen=True, slots=True)
class PairReport:
    """What was found about a pair; without classes where the models do not fit together."""

    draft: str
    target: str
    findings: Sequence[Finding]
    steps: StepSeconds | None = None
    classes: dict[str, ClassCheck] | None = None

    @property
    def passed(self) -> bool:
        """Whether nothing forbids the pair."""
        return all(finding.verdict != "mismatch" for finding in self.findings)

    def as_dict(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return {**asdict(self), "passed": self.passed}


def facts(
    draft: Path, target: Path, device: torch.device, *, other_weights: bool = False
) -> list[Finding]:
    """Return what files and memory say of the pair, without loading a model.

    `other_weights` allows a target with other weights than those that the draft learned from.
    """
    return [
        *_binding(draft, target, other_weights),
        _vocabulary(draft, target),
        _length(draft, target),
        _memory(draft, device),
    ]


def _binding(draft: Path, target: Path, other_weights: bool) -> list[Finding]:
    manifest = DraftManifest.load(draft)
    if manifest is None:
        return [Finding("binding", "warning", "the draft has no rayspec.json: nothing binds it")]
    difference = unbound(draft, manifest, target)
    if difference is None:
        bound = manifest.target
        return [Finding("binding", "ok", f"made for {bound.name}, weights {bound.model_hash}")]
    if not difference.weights:
        return [Finding("binding", "mismatch", difference.why)]
    if other_weights:
        return [Finding("binding", "warning", difference.why)]
    return [Finding("binding", "mismatch", f"{difference.why}; --other-weights allows that")]


def _vocabulary(draft: Path, target: Path) -> Finding:
    if difference := describe_difference(target, draft):
        return Finding("vocabulary", "mismatch", difference)
    return Finding("vocabulary", "ok", "the same tokens and merges")


def _length(draft: Path, target: Path) -> Finding:
    lengths = model_max_len(draft), model_max_len(target)
    detail = f"draft {lengths[0]}, target {lengths[1]} tokens"
    return Finding("length", "ok" if lengths[0] >= lengths[1] else "warning", detail)


def _memory(draft: Path, device: torch.device) -> Finding:
    shape, config = ModelShape.read(draft)
    if device.type == "cuda":
        numbers, free = Numbers.of(config), torch.cuda.mem_get_info(device)[0]
    else:
        numbers, free = Numbers.of(config, "float32"), machine_memory()[1]
    weights, token = shape.weight_bytes(numbers), shape.kv_bytes_per_token(numbers)
    needed = weights + _SEQUENCES * _LENGTH * token
    detail = (
        f"{shape.parameters / 1e6:.1f}M weights, {weights / 1e6:.0f} MB, and {token / 1e3:.1f} kB "
        f"of KV cache a token; {free / 1e9:.1f} GB are free"
    )
    return Finding("memory", "ok" if needed <= free else "mismatch", detail)


def ask(
    target: Any,
    folder: Path,
    questions: Sequence[prompts.Question],
    tokens: int,
    *,
    told: Callable[[int], None] = lambda _: None,
) -> Texts:
    """Return the target's answers to `questions`, each once greedy and once sampled."""
    encoder = Encoder(folder)
    size = 64 if target.device.type == "cuda" else 16
    generator = TransformersGenerator(target, encoder.end, batch=size)
    both = sorted(
        (
            (replace(question, temperature=temperature), encoder.prompt(question))
            for question in questions
            for temperature in (0.0, 1.0)
        ),
        key=lambda pair: (pair[0].temperature, len(pair[1])),
    )
    texts = []
    for begin in range(0, len(both), size):
        some = both[begin : begin + size]
        answers = generator.answer([Ask(ids, each.temperature, tokens) for each, ids in some])
        texts += [
            Text(ids, answer, each.workload_class, each.temperature, held_out=True)
            for (each, ids), answer in zip(some, answers, strict=True)
            if answer
        ]
        told(len(some))
    return Texts.of(texts)


def judge(
    target: Any,
    draft: Any,
    texts: Texts,
    manifest: DraftManifest | None,
    *,
    drafted: torch.Tensor | None = None,
    steps: StepSeconds | None = None,
) -> tuple[list[Finding], StepSeconds, dict[str, ClassCheck]]:
    """Measure the acceptance of the pair on `texts` and say what it gains, by class.

    `steps` are step times measured elsewhere; without them they are timed here.
    """
    found = measure(target, draft, texts, drafted=drafted)
    steps = steps or timed(target, draft, DRAFT_LENGTH)
    recorded = manifest.acceptance if manifest else {}
    findings, classes = [], {}
    for name, each in found.items():
        before = recorded[name].greedy if name in recorded else None
        classes[name] = ClassCheck(
            each,
            before,
            best_gain(each.by_position, steps) if each.by_position else None,
            None if each.sampled is None else best_gain(each.sampled, steps),
        )
        if before is not None and each.greedy is not None and each.greedy < before - _LOWER:
            findings.append(
                Finding(
                    "acceptance",
                    "warning",
                    f"{name}: {each.greedy:.0%} here, {before:.0%} when it was made",
                )
            )
    return findings, steps, classes


def thin(questions: Sequence[prompts.Question], each: int) -> list[prompts.Question]:
    """Return the first `each` greedy questions of every class."""
    seen: Counter[str] = Counter()
    kept = []
    for question in questions:
        seen[question.workload_class] += 1
        if seen[question.workload_class] <= each:
            kept.append(question)
    return kept
