"""What speculation with a draft would gain, from its acceptance and the step times of the pair."""

from __future__ import annotations

import time
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch

from rayspec.errors import ConfigError
from rayspec.planning.calibration import CALIBRATED, Calibration
from rayspec.routing.cost_model import Acceptance, expected_tokens
from rayspec.routing.types import Lane

__all__ = ["Gain", "StepSeconds", "best_gain", "calibrated", "timed"]

_CONTEXT, _WARM_UP = 256, 2


@dataclass(frozen=True, slots=True)
class StepSeconds:
    """Seconds of a step of one sequence: `plain`, and `speculative` with K = 1, 2, … drafts."""

    plain: float
    speculative: tuple[float, ...]
    source: str


@dataclass(frozen=True, slots=True)
class Gain:
    """Times as fast as without drafts, with the best draft length `k`; 0 where none pays."""

    k: int
    speedup: float


def best_gain(acceptance: Acceptance, steps: StepSeconds) -> Gain:
    """Return the draft length that yields most tokens a second, and how many times as many."""
    gains = [Gain(0, 1.0)] + [
        Gain(k, expected_tokens(acceptance, k) * steps.plain / seconds)
        for k, seconds in enumerate(steps.speculative, 1)
    ]
    return max(gains, key=lambda gain: gain.speedup)


def calibrated(calibration: Calibration, k: int) -> StepSeconds:
    """Return the step times of an application that `rayspec calibrate` measured, drafts waited for.

    ConfigError when it has only one of the lanes.
    """
    costs = calibration.costs()
    if missing := [lane.value for lane in CALIBRATED if lane not in costs]:
        raise ConfigError("calibration", calibration.model, f"has no {missing[0]} lane")
    plain, speculative = (costs[lane].steps for lane in (Lane.PLAIN, Lane.SPECULATIVE))
    return StepSeconds(
        plain.seconds(1, 0, _CONTEXT),
        tuple(speculative.seconds(1, drafts, _CONTEXT) for drafts in range(1, k + 1)),
        f"calibration of {calibration.model} on {calibration.hardware or 'unknown hardware'}",
    )


def timed(target: Any, draft: Any, k: int, *, rounds: int = 9) -> StepSeconds:
    """Return step times from forwards of both models by transformers on this device.

    A step with K drafts is K forwards of the draft and one of the target over K + 1 tokens, one
    after the other; vLLM is faster at both.
    """
    # In turns, so that a machine that gets slower slows all of them.
    forwards = [_Forward(draft, 1), *(_Forward(target, tokens) for tokens in range(1, k + 2))]
    seconds = [[forward.seconds() for forward in forwards] for _ in range(rounds + _WARM_UP)]
    drafting, plain, *verifying = (median(each) for each in zip(*seconds[_WARM_UP:], strict=True))
    return StepSeconds(
        plain,
        tuple(each + drafts * drafting for drafts, each in enumerate(verifying, 1)),
        "timed here, one sequence, by transformers",
    )


class _Forward:
    """A forward over `tokens` after a context of 256, as often as it is asked for."""

    @torch.inference_mode()
    def __init__(self, model: Any, tokens: int) -> None:
        from transformers import DynamicCache

        self._model, device = model, next(model.parameters()).device
        self._cache = DynamicCache(config=model.config)
        context = torch.ones((1, _CONTEXT), dtype=torch.long, device=device)
        model(context, past_key_values=self._cache)
        self._ids = context[:, :tokens]
        self._on_gpu = device.type == "cuda"

    @torch.inference_mode()
    def seconds(self) -> float:
        """Return how long it took this time."""
        if self._on_gpu:
            torch.cuda.synchronize()
        began = time.perf_counter()
        self._model(self._ids, past_key_values=self._cache)
        if self._on_gpu:
            torch.cuda.synchronize()
        took = time.perf_counter() - began
        self._cache.crop(-self._ids.shape[1])
        return took
