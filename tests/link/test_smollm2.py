"""The model draft on a real model, over a real link: it drafts what the model generates."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils.logging import disable_progress_bar

from rayspec.draft.identity import model_vocab_size, tokenizer_hash
from rayspec.draft.model import ModelDrafter, ModelDrafterSpec
from rayspec.draft.server import DraftServer
from rayspec.draft.spec import DraftServerSpec
from rayspec.errors import LinkRefused
from rayspec.models.fetch import resolve
from tests.support.link_rig import SPEC, Target, wait_until

TEXTS = (
    "The capital of France is",
    "def fibonacci(n):\n    if n < 2:\n        return n\n    return",
    "Repeat: red green blue yellow. " * 4 + "Once more: red",
)
NEW_TOKENS = 12


@pytest.fixture(scope="module")
def path() -> Path:
    return resolve("smollm2")


@pytest.fixture(scope="module")
def prompts(path: Path) -> list[list[int]]:
    tokenizer: Any = AutoTokenizer.from_pretrained(path)
    return [tokenizer(text)["input_ids"] for text in TEXTS]


@pytest.fixture(scope="module")
def expected(path: Path, prompts: list[list[int]]) -> list[list[int]]:
    """What transformers generates greedily."""
    disable_progress_bar()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    generated = []
    for prompt in prompts:
        ids = torch.tensor([prompt])
        out = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=NEW_TOKENS,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
        )
        generated.append(out[0, len(prompt) :].tolist())
    torch.set_num_threads(threads)
    return generated


@pytest.fixture(scope="module")
def server(path: Path) -> Iterator[DraftServer]:
    drafter = ModelDrafter(
        ModelDrafterSpec(path=str(path), slots=4, max_len=256, dtype="float32", threads=1)
    )
    spec = DraftServerSpec(vocab_size=model_vocab_size(path), tokenizer_hash=tokenizer_hash(path))
    server = DraftServer(drafter, spec)
    server.start()
    yield server
    server.close()


def test_drafts_are_the_models_own_tokens(
    server: DraftServer, path: Path, prompts: list[list[int]], expected: list[list[int]]
) -> None:
    spec = replace(
        SPEC,
        vocab_size=model_vocab_size(path),
        tokenizer_hash=tokenizer_hash(path),
        deadline_s=60.0,
    )
    with pytest.raises(LinkRefused, match="vocabulary sizes differ: target 1000, draft 49152"):
        server.admit(replace(spec, vocab_size=1000).hello(1))
    target = Target(spec)
    target.attach(server.admit(spec.hello(1)))
    for slot, prompt in enumerate(prompts):
        target.begin(slot, *prompt)
    # All three are prefilled, in parallel, once the longest drafts.
    wait_until(lambda: all((target.step() or {0: []}).values()), "prefill")
    drafts = target.step()
    assert drafts is not None
    done = [0] * len(prompts)
    accepted = (4, 0, 2)  # all of a draft, none, and a part
    for _ in range(2):
        outcomes: dict[str, list[int]] = {}
        for slot, tokens in enumerate(expected):
            assert drafts[slot] == tokens[done[slot] : done[slot] + 4]
            end = done[slot] + accepted[slot] + 1
            outcomes[f"s{slot}"] = tokens[done[slot] : end]
            done[slot] = end
        drafts = target.step(4, **outcomes) or {}
    assert drafts[0] == expected[0][10:12] + drafts[0][2:]
    # A target that is attached anew sends everything again; the cache is still right.
    target.attach(server.admit(spec.hello(2)))
    again = target.step()
    assert again is not None
    assert again[1] == expected[1][done[1] : done[1] + 4]
    assert again[2] == expected[2][done[2] : done[2] + 4]
    assert target.link.stats().resyncs == 0
    target.link.close()
