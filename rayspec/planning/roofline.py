"""Step times from bandwidth and arithmetic, for pairs of models that nobody has measured yet.

A step takes the longer of reading (weights and KV cache, at 85 % of the stated bandwidth) and
computing (2 operations per weight and token, at half of the stated peak), plus 40 µs a layer.
Those three numbers were chosen by hand so that they meet what was measured on H200s within 15 %:

| | measured ms | here |
|---|---|---|
| 8B, batch 1 / 16 / 64 | 4.90 / 5.20 / 6.29 | 4.97 / 5.16 / 5.75 |
| 8B verifying 5 drafts, batch 1 / 16 / 64 | 5.04 / 6.00 / 12.6 | 4.97 / 5.16 / 12.9 |
| 70B on two GPUs, batch 1 | 20.4 | 20.3 |
| a draft, batch 1: 1B / 0.13B / 0.19B in 4 layers | 1.21 / 1.15 / 0.265 | 1.25 / 1.27 / 0.256 |

(load_tests/RESULTS.md, and the example calibration's notes.) For other GPUs, for more than two of
them, and for mixtures of experts beyond a few tokens it is a guess. Measure instead where you can.
"""

from __future__ import annotations

from rayspec.planning.calibration import LaneProfile, PrefillFit, Step
from rayspec.planning.gpus import Gpu
from rayspec.planning.memory import ModelShape, Numbers

__all__ = ["ASSUMPTIONS", "lane_profile", "step_s"]

_BANDWIDTH = 0.85
_FLOPS = 0.5
_LAYER_S = 40e-6
_LINK_S = 60e-6  # frames to the draft and back over NCCL
_BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_CONTEXTS = (384, 4096)

ASSUMPTIONS = (
    f"step times are not measured but a roofline: {_BANDWIDTH:.0%} of the bandwidth, "
    f"{_FLOPS:.0%} of the peak arithmetic, and {1e6 * _LAYER_S:.0f} us a layer",
    "drafts take K steps one after another on a GPU of their own, each as a roofline, and "
    f"{1e6 * _LINK_S:.0f} us on the link; nothing overlaps with the verification",
    "GPUs of one engine are linked so that their exchange costs no more than it did on two H200s",
)


def step_s(
    shape: ModelShape,
    numbers: Numbers,
    gpu: Gpu,
    *,
    batch: int,
    tokens: int = 1,
    context: int = 384,
    tensor_parallel: int = 1,
) -> float:
    """Return the time of a step of `batch` sequences with `tokens` each."""
    layers = shape.layer_weights
    if shape.experts:  # tokens share experts; independent ones reach this share of them
        reached = 1 - (1 - shape.active_experts / shape.experts) ** (batch * tokens)
        layers = shape.layers_with(round(shape.experts * reached))
    read = layers * numbers.weight + shape.vocabulary * shape.hidden * numbers.other
    cache = batch * context * shape.kv_bytes_per_token(numbers, tensor_parallel)
    read_s = (read / tensor_parallel + cache) / (_BANDWIDTH * gpu.bandwidth)
    operations = 2 * shape.active_parameters * batch * tokens
    compute_s = operations / tensor_parallel / (_FLOPS * gpu.flops(numbers.weight))
    return max(read_s, compute_s) + shape.layers * _LAYER_S


def lane_profile(
    target: tuple[ModelShape, Numbers],
    gpu: Gpu,
    *,
    tensor_parallel: int,
    max_num_seqs: int,
    chunk_tokens: int,
    draft: tuple[ModelShape, Numbers] | None = None,
    tiers: tuple[int, ...] = (),
) -> LaneProfile:
    """Return an engine's step times, those with a draft if there is one."""
    steps = []
    for context in _CONTEXTS:
        for batch in _BATCHES:
            drafting = (
                step_s(*draft, gpu, batch=batch, context=context) if draft is not None else 0.0
            )
            for k in (0, *tiers) if draft is not None else (0,):
                verify = step_s(
                    *target,
                    gpu,
                    batch=batch,
                    tokens=k + 1,
                    context=context,
                    tensor_parallel=tensor_parallel,
                )
                wait = k * drafting + _LINK_S if k else 0.0
                steps.append(Step(batch=batch, k=k, context=context, seconds=verify + wait))
    shape, numbers = target
    per_token = 2 * shape.active_parameters / tensor_parallel / _FLOPS / gpu.flops(numbers.weight)
    base = step_s(*target, gpu, batch=1, tensor_parallel=tensor_parallel)
    return LaneProfile(
        steps=steps,
        prefill=PrefillFit(base_s=base, per_token_s=per_token),
        max_num_seqs=max_num_seqs,
        chunk_tokens=chunk_tokens,
        gpus=tensor_parallel + (draft is not None),
    )
