"""Lets the target answer: by vLLM where there is a GPU, else by transformers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

__all__ = ["Ask", "Generator", "TransformersGenerator", "VllmGenerator"]


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
    """vLLM's offline engine. Read at vLLM 0.32.0."""

    def __init__(self, folder: Path, *, max_len: int, gpu_share: float, seed: int = 0) -> None:
        from vllm import LLM

        options: dict[str, Any] = {}
        if torch.cuda.is_available():
            options = {"gpu_memory_utilization": gpu_share, "max_num_seqs": 1024}
        self._llm: Any = LLM(
            str(folder),
            max_model_len=max_len,
            seed=seed,
            generation_config="vllm",  # no sampling defaults of the model's
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
        self._model, self._end, self._batch = model, end, batch

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
            eos_token_id=self._end,
            pad_token_id=0 if self._end is None else self._end,
        )
        device = next(self._model.parameters()).device
        found = self._model.generate(
            ids.to(device), attention_mask=mask.to(device), generation_config=config
        )
        return [self._cut(row) for row in found[:, width:].tolist()]

    def _cut(self, answer: list[int]) -> list[int]:
        if self._end in answer:
            return answer[: answer.index(self._end) + 1]
        return answer

    def close(self) -> None:
        """Nothing to give back."""
