"""SmolLM2 in the shape of an 8B model, in bfloat16: the same text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from vllm import LLM, SamplingParams

from load_tests.grow import engine_args
from load_tests.growth import SHAPES, GrownModel
from load_tests.prompts import sample
from rayspec.models.cache import lookup

pytestmark = [pytest.mark.gpu, pytest.mark.e2e, pytest.mark.timeout(900)]

PROMPTS = 32
TOKENS = 64


@dataclass(frozen=True)
class Answer:
    """Token ids of a prompt, and what was said to it with the margin of every token."""

    prompt: list[int]
    tokens: list[int]
    margins: list[float]  # log-probability over that of the second-best token


class Model:
    """An engine of its own process, gone at the end of the block."""

    def __init__(self, folder: Path, **arguments: Any) -> None:
        self._arguments = {
            "model": str(folder),
            "dtype": "bfloat16",
            "max_model_len": 1024,
            "gpu_memory_utilization": 0.5,
            "enable_prefix_caching": False,
            "max_num_seqs": PROMPTS,
            **arguments,
        }

    def __enter__(self) -> Model:
        self._llm: Any = LLM(**self._arguments)
        return self

    def __exit__(self, *_: object) -> None:
        core = self._llm.llm_engine.engine_core
        core.shutdown()
        # vLLM leaves this one to the interpreter's exit, which warns.
        core.ctx.destroy(linger=0)

    def answer(self, prompts: Sequence[str]) -> list[Answer]:
        messages = [[{"role": "user", "content": prompt}] for prompt in prompts]
        params = SamplingParams(temperature=0, max_tokens=TOKENS, logprobs=2)
        found = []
        for output in self._llm.chat(messages, params, use_tqdm=False):
            choice = output.outputs[0]
            best = [sorted(p.logprob for p in step.values())[-2:] for step in choice.logprobs]
            margins = [top - second for second, top in best]
            found.append(Answer(list(output.prompt_token_ids), list(choice.token_ids), margins))
        return found

    def agrees(self, answers: Sequence[Answer]) -> list[list[bool]]:
        """Return whether each token is this model's choice, too, after those before it."""
        texts = [{"prompt_token_ids": answer.prompt + answer.tokens} for answer in answers]
        params = SamplingParams(temperature=0, max_tokens=1, prompt_logprobs=1)
        outputs = self._llm.generate(texts, params, use_tqdm=False)
        return [
            [
                step[token].logprob >= max(other.logprob for other in step.values())
                for step, token in zip(
                    output.prompt_logprobs[len(answer.prompt) :], answer.tokens, strict=True
                )
            ]
            for output, answer in zip(outputs, answers, strict=True)
        ]


def test_the_8b_shape_says_the_same(tmp_path: Path, record_property: Any) -> None:
    source = lookup("smollm2")
    if source is None:
        pytest.skip("SmolLM2 is not in the cache: rayspec models fetch smollm2")
    prompts = [prompt.text for prompt in sample(PROMPTS, seed=7)]
    with Model(source) as small:
        expected = small.answer(prompts)
        itself = small.agrees(expected)
    arguments = engine_args(GrownModel.of(source, SHAPES["8b"]).write_config(tmp_path))
    with Model(Path(arguments.pop("model")), **arguments) as grown:
        equal = grown.agrees(expected)
        found = grown.answer(prompts)

    margins = [
        margin
        for answer, flags in zip(expected, equal, strict=True)
        for margin, same in zip(answer.margins, flags, strict=True)
        if not same
    ]
    figures = {
        "tokens": sum(map(len, equal)),
        # The same tokens in one prefill instead of one decode step each, by the small model.
        "small_model_agrees_with_itself": _share(itself),
        "grown_model_agrees": _share(equal),
        "equal_texts": sum(a.tokens == b.tokens for a, b in zip(expected, found, strict=True)),
        "widest_margin_overturned": max(margins, default=0.0),
    }
    for name, value in figures.items():
        record_property(name, value)
    assert figures["grown_model_agrees"] >= 0.95, figures
    # Only near ties fall otherwise: bfloat16 logits of this size are 0.125 apart.
    assert figures["widest_margin_overturned"] <= 0.75, figures


def _share(flags: Sequence[Sequence[bool]]) -> float:
    every = [flag for row in flags for flag in row]
    return sum(every) / len(every)
