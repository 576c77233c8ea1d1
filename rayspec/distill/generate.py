"""Lets the target answer: by vLLM where there is a GPU, else by transformers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import torch

__all__ = ["Ask", "Generator", "TransformersGenerator", "VllmGenerator"]


_ACTIVATIONS: Final = 6 * 2**30  # and graphs
_SEQUENCES: Final = 512  # at a time: as many as CUDA graphs are captured for
_GRAPHS: Final = [8, 64, 128, 192, 256, 320, 384, 448, 512]  # few: capturing takes time


@dataclass(frozen=True, slots=True)
class Ask:
    """A prompt, and how its answer is drawn: greedy at temperature 0, else from all tokens."""

    prompt: Sequence[int]
    temperature: float
    max_tokens: int


class Generator(Protocol):
    """Answers prompts with token ids; the end-of-text token is part of an answer that ends."""

    def answer(self, asked: Sequence[Ask]) -> list[list[int]]:
        """Return an answer to each prompt."""

    def close(self) -> None:
        """Give back what it holds; may be called twice."""


class VllmGenerator:
    """vLLM's offline engine; on a GPU it takes `gpu_share` of the memory. Read at vLLM 0.32.0.

    Engines that start beside each other would each take what the others allocate meanwhile for
    their own, so the KV cache gets a size instead of being measured.
    """

    def __init__(
        self, folder: Path, *, max_len: int, gpu_share: float = 0.8, seed: int = 0
    ) -> None:
        from vllm import LLM
        from vllm.platforms import current_platform

        options: dict[str, Any] = {}
        if not current_platform.is_cpu():
            memory = gpu_share * current_platform.get_device_total_memory()
            weights = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
            options = {
                "gpu_memory_utilization": gpu_share,
                "kv_cache_memory_bytes": int(max(memory - weights - _ACTIVATIONS, memory / 8)),
                "max_num_seqs": _SEQUENCES,
                "compilation_config": {"cudagraph_capture_sizes": _GRAPHS},
            }
        self._llm: Any = LLM(
            str(folder),
            max_model_len=max_len,
            seed=seed,
            disable_log_stats=True,
            **options,
        )

    def answer(self, asked: Sequence[Ask]) -> list[list[int]]:
        """Return an answer to each prompt."""
        from vllm import SamplingParams

        outputs = self._llm.generate(
            [{"prompt_token_ids": list(ask.prompt)} for ask in asked],
            [
                SamplingParams(
                    temperature=ask.temperature, max_tokens=ask.max_tokens, detokenize=False
                )
                for ask in asked
            ],
            use_tqdm=False,
        )
        return [list(output.outputs[0].token_ids) for output in outputs]

    def close(self) -> None:
        """Stop the engine's process."""
        self._llm.llm_engine.engine_core.shutdown()


class TransformersGenerator:
    """transformers' `generate`, in batches of prompts of like length and the same temperature."""

    def __init__(self, model: Any, end: int | None, *, batch: int = 16) -> None:
        self._model, self._batch = model, batch
        ends = model.generation_config.eos_token_id
        self._ends = ends if isinstance(ends, list) else [end if ends is None else ends]

    def answer(self, asked: Sequence[Ask]) -> list[list[int]]:
        """Return an answer to each prompt."""
        answers: list[list[int]] = [[] for _ in asked]
        order = sorted(
            range(len(asked)),
            key=lambda i: (asked[i].temperature, asked[i].max_tokens, len(asked[i].prompt)),
        )
        begin = 0
        while begin < len(order):
            first = asked[order[begin]]
            group = [
                index
                for index in order[begin : begin + self._batch]
                if (asked[index].temperature, asked[index].max_tokens)
                == (first.temperature, first.max_tokens)
            ]
            for index, answer in zip(group, self._some([asked[i] for i in group]), strict=True):
                answers[index] = answer
            begin += len(group)
        return answers

    @torch.inference_mode()
    def _some(self, asked: Sequence[Ask]) -> list[list[int]]:
        from transformers import GenerationConfig

        first, width = asked[0], max(len(ask.prompt) for ask in asked)
        ids = torch.zeros((len(asked), width), dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, ask in enumerate(asked):
            ids[row, width - len(ask.prompt) :] = torch.tensor(list(ask.prompt))
            mask[row, width - len(ask.prompt) :] = 1
        sampled = first.temperature > 0
        config = GenerationConfig(
            max_new_tokens=first.max_tokens,
            do_sample=sampled,
            temperature=first.temperature if sampled else None,
            top_k=0 if sampled else None,
            eos_token_id=self._ends if None not in self._ends else None,
            pad_token_id=self._ends[0] or 0,
        )
        device = next(self._model.parameters()).device
        found = self._model.generate(
            ids.to(device), attention_mask=mask.to(device), generation_config=config
        )
        return [self._cut(row) for row in found[:, width:].tolist()]

    def _cut(self, answer: list[int]) -> list[int]:
        ended = next((at for at, token in enumerate(answer) if token in self._ends), len(answer))
        return answer[: ended + 1]

    def close(self) -> None:
        """Nothing to give back."""
