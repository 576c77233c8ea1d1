from __future__ import annotations

import copy
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from rayspec.draft.base import DraftRequest
from rayspec.draft.forward import _ATTENTION
from rayspec.draft.mirror import DraftSequence
from rayspec.draft.model import ModelDrafter, ModelDrafterSpec

VOCAB = 97
MAX_LEN = 160


@pytest.fixture(scope="module")
def model() -> Any:
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        initializer_range=0.3,
        attn_implementation=_ATTENTION,
    )
    return LlamaForCausalLM(config).eval()


def drafter_of(model: Any, *, slots: int = 4, catch_up: int = 8) -> ModelDrafter:
    spec = ModelDrafterSpec(path="", slots=slots, max_len=MAX_LEN, catch_up=catch_up, threads=1)
    drafter = ModelDrafter(spec, load=lambda _: model)
    drafter.start()
    return drafter


@torch.inference_mode()
def greedy(model: Any, tokens: list[int], k: int, never: Sequence[int] = ()) -> list[int]:
    """Return what the model says without any cache, with transformers' own attention."""
    model.set_attn_implementation("eager")
    try:
        grown = list(tokens)
        for _ in range(k):
            logits = model(torch.tensor([grown]), use_cache=False, logits_to_keep=1).logits
            logits[0, -1, list(never)] = -torch.inf
            grown.append(int(logits[0, -1].argmax()))
    finally:
        model.set_attn_implementation(_ATTENTION)
    return grown[len(tokens) :]


@torch.inference_mode()
def test_only_listed_tokens_are_drafted(model: Any, tmp_path: Path) -> None:
    listed = sorted(random.Random(5).sample(range(VOCAB), 31))
    (tmp_path / "ids.json").write_text(json.dumps(listed))
    spec = ModelDrafterSpec(
        path="", slots=2, max_len=MAX_LEN, threads=1, vocab_trim=str(tmp_path / "ids.json")
    )
    # Its output layer is replaced.
    drafter = ModelDrafter(spec, load=lambda _: copy.deepcopy(model))
    drafter.start()
    sequence = prompt(random.Random(1), 12)
    drafter.add(sequence)
    prefill(drafter)

    (drafts,) = drafter.draft([DraftRequest(sequence, 5)])

    others = [token for token in range(VOCAB) if token not in listed]
    assert drafts == greedy(model, sequence.tokens, 5, never=others)
    assert len(drafts) == 5
    assert drafts != greedy(model, sequence.tokens, 5)


def prompt(rng: random.Random, length: int) -> DraftSequence:
    tokens = [rng.randrange(VOCAB) for _ in range(length)]
    return DraftSequence(0, 1, 8, 0.0, None, tokens)


def prefill(drafter: ModelDrafter) -> int:
    pieces = 0
    while drafter.work():
        pieces += 1
    return pieces


def check(model: Any, drafter: ModelDrafter, wanted: dict[DraftSequence, int]) -> list[list[int]]:
    requests = [DraftRequest(live, k) for live, k in wanted.items()]
    drafts: list[list[int]] = drafter.draft(requests)
    assert drafts == [greedy(model, live.tokens, k) for live, k in wanted.items()]
    return drafts


def test_ragged_batches_draft_what_the_model_generates(model: Any) -> None:
    """Different lengths and k; drafts accepted, cut and rejected; sequences left out."""
    rng = random.Random(1)
    drafter = drafter_of(model)
    lives = [prompt(rng, length) for length in (1, 5, 23, 60)]
    for live in lives:
        drafter.add(live)
    prefill(drafter)
    for _ in range(8):
        asked = rng.sample(lives, rng.randint(1, len(lives)))
        wanted = {live: rng.randint(1, 5) for live in asked}
        drafts = check(model, drafter, wanted)
        for live, draft in zip(asked, drafts, strict=True):
            accepted = rng.randint(0, len(draft))
            live.extend([*draft[:accepted], rng.randrange(VOCAB)])
        for live in lives:
            if live not in wanted:
                live.extend([rng.randrange(VOCAB)])  # went on without asking


def test_all_accepted_and_asked_twice(model: Any) -> None:
    drafter = drafter_of(model)
    live = prompt(random.Random(2), 6)
    drafter.add(live)
    for _ in range(3):
        (draft,) = check(model, drafter, {live: 4})
        live.extend([*draft, greedy(model, live.tokens + draft, 1)[0]])
    check(model, drafter, {live: 4})
    check(model, drafter, {live: 2})
    check(model, drafter, {live: 5})


def test_a_cell_that_is_reused_holds_nothing_of_the_last_sequence(model: Any) -> None:
    rng = random.Random(4)
    drafter = drafter_of(model, slots=1)
    for length in (30, 4, 50, 12):
        live = prompt(rng, length)
        drafter.add(live)
        prefill(drafter)
        check(model, drafter, {live: 4})
        drafter.drop(live)


def test_after_a_reset_the_same_sequence_needs_no_prefill(model: Any) -> None:
    drafter = drafter_of(model, slots=2)
    live = prompt(random.Random(5), 80)
    drafter.add(live)
    prefill(drafter)
    (draft,) = check(model, drafter, {live: 4})
    live.extend(draft[:2])
    drafter.drop(live)
    again = DraftSequence(0, 2, 8, 0.0, None, list(live.tokens))
    drafter.add(again)
    assert prefill(drafter) == 0
    check(model, drafter, {again: 4})


def test_prefill_in_the_background_holds_up_nobody(model: Any) -> None:
    rng = random.Random(6)
    drafter = drafter_of(model)
    ready, long = prompt(rng, 5), prompt(rng, 150)
    drafter.add(ready)
    drafter.add(long)
    pieces = 0
    while True:
        drafts = drafter.draft([DraftRequest(ready, 3), DraftRequest(long, 3)])
        assert drafts[0] == greedy(model, ready.tokens, 3)
        if drafts[1]:
            break
        assert drafter.work() or drafts[1] == []
        pieces += 1
    assert pieces >= 2
    assert drafts[1] == greedy(model, long.tokens, 3)


def test_no_drafts_beyond_the_cache_or_without_a_cell(model: Any) -> None:
    rng = random.Random(7)
    drafter = drafter_of(model, slots=2)
    nearly_full, too_long, waiting = (
        prompt(rng, MAX_LEN - 2),
        prompt(rng, MAX_LEN + 1),
        prompt(rng, 3),
    )
    for live in (nearly_full, too_long, waiting):
        drafter.add(live)
    prefill(drafter)
    requests = [DraftRequest(live, 4) for live in (nearly_full, too_long, waiting)]
    drafts = drafter.draft(requests)
    assert drafts == [greedy(model, nearly_full.tokens, 2), [], []]
    nearly_full.extend(drafts[0])
    assert drafter.draft(requests) == [[], [], []]
    drafter.drop(too_long)
    check(model, drafter, {waiting: 4})


def test_random_life(model: Any) -> None:
    """Admissions, departures, rejections and prefill in any order never change a draft."""
    rng = random.Random(8)
    drafter = drafter_of(model, slots=3)
    lives: list[DraftSequence] = []
    compared = 0
    for _ in range(100):
        action = rng.random()
        if action < 0.2 and len(lives) < 5:
            lives.append(prompt(rng, rng.randint(1, 70)))
            drafter.add(lives[-1])
        elif action < 0.25 and lives:
            drafter.drop(lives.pop(rng.randrange(len(lives))))
        elif action < 0.5:
            drafter.work()
        elif lives:
            asked = rng.sample(lives, rng.randint(1, len(lives)))
            drafts = drafter.draft([DraftRequest(live, rng.randint(1, 4)) for live in asked])
            for live, draft in zip(asked, drafts, strict=True):
                if draft:
                    compared += 1
                    assert draft == greedy(model, live.tokens, len(draft))
                accepted = rng.randint(0, len(draft))
                live.extend([*draft[:accepted], rng.randrange(VOCAB)])
    assert compared > 20
