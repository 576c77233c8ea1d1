"""Trains a draft on stored scores of its target, and can stop after any step and go on later."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rayspec.distill.batches import collate, epochs
from rayspec.distill.loss import ChosenLogProbs, divergence
from rayspec.distill.score import Scores, answered_before
from rayspec.distill.spec import LossKind
from rayspec.distill.texts import Texts

__all__ = ["Progress", "Training", "learn", "rate_at"]

_TIMED_FROM, _TIMED_TO = 10, 40  # steps from which the time of all others is foreseen at first
_AGAIN = 1.25  # and again whenever there are so many times as many, for first steps are slow,
_SETTLED = 0.8  # up to this share of them, so that the rate falls smoothly
_FIRST_RISE = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """How to train: `steps` of them, or None for as many as are done at `deadline`.

    `deadline` is of the clock that `learn` gets. `rate` is the greatest learning rate, reached
    after the share `warm_up` of the steps; it then falls in a straight line to nothing.
    """

    batch_tokens: int
    rate: float
    loss: LossKind = "kl"
    steps: int | None = None
    deadline: float = 0.0
    warm_up: float = 0.02
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Progress:
    """Where training is: `total` is None until it is known; `loss` is a scalar on the device."""

    step: int
    total: int | None
    loss: torch.Tensor
    tokens: int


def rate_at(step: int, total: int | None, warm_up: float) -> float:
    """Return the share of the full rate in a step, counted from 0."""
    if total is None:  # the first steps, whose time tells how many there are to be
        return (step + 1) / _FIRST_RISE
    rising = max(1, round(warm_up * total))
    return min((step + 1) / rising, (total - step) / max(1, total - rising))


def learn(
    student: Any,
    texts: Texts,
    scores: Scores,
    training: Training,
    checkpoint: Path,
    *,
    save_every_s: float = 60.0,
    clock: Callable[[], float] = time.monotonic,
) -> Generator[Progress, None, None]:
    """Train `student`, float32 weights on its device, and yield after each step.

    Goes on from `checkpoint` where there is one. That is written every `save_every_s`, and when the
    generator ends or is closed; what follows from it is the same as without the stop.
    """
    device = next(student.parameters()).device
    optimizer = torch.optim.AdamW(
        student.parameters(),
        lr=training.rate,
        betas=(0.9, 0.98),
        weight_decay=0.0,
        fused=device.type == "cuda",
    )
    step, total, answered = 0, training.steps, answered_before(texts)
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location=device, weights_only=True)
        student.load_state_dict(state["student"])
        optimizer.load_state_dict(state["optimizer"])
        step, total = state["step"], training.steps or state["total"]
    student.train()
    scores = scores.on(device)
    first, saved, pace = step, clock(), _Pace(training.deadline, clock)
    foreseen = total is None
    try:
        for chosen in epochs(texts.lengths, training.batch_tokens, training.seed, skip=step):
            if total is not None and step >= total:
                break
            batch = collate(texts, chosen, answered)
            for group in optimizer.param_groups:
                group["lr"] = training.rate * rate_at(step, total, training.warm_up)
            logp = scores.rows(batch.rows, device)
            loss = _gradients(
                student, _move(batch.ids, device), _move(batch.places, device), *logp, training.loss
            )
            torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            step += 1
            if foreseen:
                total = pace.total(step, step - first, total, loss)
            if clock() - saved >= save_every_s:
                _save(checkpoint, student, optimizer, step, total)
                saved = clock()
            yield Progress(step, total, loss, len(batch.rows))
    finally:
        _save(checkpoint, student, optimizer, step, total)
        student.eval()


def _gradients(
    student: Any,
    ids: torch.Tensor,
    places: torch.Tensor,
    chosen: torch.Tensor,
    logp: torch.Tensor,
    kind: LossKind,
) -> torch.Tensor:
    """Add the gradients of one batch to the weights' and return its loss."""
    with torch.autocast(ids.device.type, torch.bfloat16, enabled=ids.device.type == "cuda"):
        hidden = student.base_model(ids, use_cache=False).last_hidden_state
    weight = student.get_output_embeddings().weight
    picked = hidden.flatten(0, 1)[places].float()
    loss = divergence(logp, ChosenLogProbs.apply(picked, weight, chosen), kind)
    loss.backward()
    detached: torch.Tensor = loss.detach()
    return detached


class _Pace:
    """Foresees how many steps there will be by the deadline, from the time of those since a mark.

    What happens between two steps, such as a measurement, counts as well.
    """

    def __init__(self, deadline: float, clock: Callable[[], float]) -> None:
        self._deadline, self._clock = deadline, clock
        self._at, self._marked, self._next = clock(), 0, _TIMED_TO

    def total(self, step: int, done: int, total: int | None, loss: torch.Tensor) -> int | None:
        """Return the number of steps, None before enough were timed; `done` are this run's."""
        if total is None and self._clock() >= self._deadline:
            return step
        if done == _TIMED_FROM or done >= self._next:
            float(loss)  # the device is behind
            now, since = self._clock(), done - self._marked
            each = max((now - self._at) / since, 1e-6)
            self._at, self._marked = now, done
            if done >= self._next:
                self._next = int(_AGAIN * done)
                if total is None or step <= _SETTLED * total:
                    total = step + max(1, int((self._deadline - now) / each))
        return total


def _move(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return `tensor` on the device, without waiting for what that does."""
    if device.type != "cuda":
        return tensor
    return tensor.pin_memory().to(device, non_blocking=True)


def _save(file: Path, student: Any, optimizer: Any, step: int, total: int | None) -> None:
    partial = file.with_suffix(".partial")
    torch.save(
        {
            "student": student.state_dict(),
            "optimizer": optimizer.state_dict(),
            "step": step,
            "total": total,
        },
        partial,
    )
    partial.replace(file)
