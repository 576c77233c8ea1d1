"""With a draft or without, good or bad: the same tokens."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from vllm import SamplingParams
from vllm.sampling_params import StructuredOutputsParams

from tests.support.draft_process import DraftProcess
from tests.support.engines import Engine, Result

pytestmark = pytest.mark.e2e

GREEDY = SamplingParams(temperature=0, max_tokens=16, ignore_eos=True)
RANDOM = ("--kind", "random", "--vocab-size", "49152")


@pytest.fixture(scope="module")
def reference() -> list[Result]:
    """Filled by the first test that has an engine: what it says without a draft."""
    return []


@pytest.fixture
def expected(v1: Engine, prompts: list[str], reference: list[Result]) -> list[Result]:
    if not reference:
        reference.extend(v1.run(prompts, GREEDY))
    return reference


def model_options(path: Path) -> tuple[str, ...]:
    return ("--kind", "model", "--model", str(path), "--slots", "8", "--max-len", "256")


def test_with_ngram_drafts(
    v1: Engine, prompts: list[str], expected: list[Result], tmp_path: Path
) -> None:
    hits = v1.metric("vllm:prefix_cache_hits")
    figures, before = v1.stats.latest, v1.status()
    with v1.drafting(DraftProcess(tmp_path, "--kind", "ngram")) as draft:
        results = v1.run(prompts, GREEDY)
        assert draft.stats()["mismatches"] == 0
    after = v1.status()
    assert [r.tokens for r in results] == [e.tokens for e in expected]
    assert after["accepted"] > before["accepted"]
    # What makes this hard really happened.
    assert v1.stats.latest.preemptions > figures.preemptions
    assert v1.metric("vllm:prefix_cache_hits") > hits
    # A replica sees the same without asking the worker.
    accepted = v1.stats.latest.accepted - figures.accepted
    assert accepted == after["accepted"] - before["accepted"]


def test_with_perfect_drafts(
    v1: Engine, prompts: list[str], expected: list[Result], smollm2: Path, tmp_path: Path
) -> None:
    before = v1.status()
    with v1.drafting(DraftProcess(tmp_path, *model_options(smollm2))) as draft:
        results = v1.run(prompts, GREEDY)
        assert draft.stats()["mismatches"] == 0
    after = v1.status()
    assert [r.tokens for r in results] == [e.tokens for e in expected]
    drafted = after["drafted"] - before["drafted"]
    assert drafted > len(prompts) * 6
    assert (after["accepted"] - before["accepted"]) / drafted > 0.95


def test_with_useless_drafts(
    v1: Engine, prompts: list[str], expected: list[Result], tmp_path: Path
) -> None:
    before = v1.status()
    few = SamplingParams(temperature=0, max_tokens=10, ignore_eos=True)
    with v1.drafting(DraftProcess(tmp_path, *RANDOM)):
        results = v1.run(prompts, few)
    after = v1.status()
    assert [r.tokens for r in results] == [e.tokens[:10] for e in expected]
    drafted = after["drafted"] - before["drafted"]
    assert drafted > len(prompts) * 9
    assert (after["accepted"] - before["accepted"]) / drafted < 0.01


def test_up_to_the_longest_context(v1: Engine, tmp_path: Path) -> None:
    # Near the end vLLM does not ask for drafts, and what is sampled there has to be told later.
    counting = " ".join(str(n) for n in range(1, 80))
    prompts = [counting, "Say it again and again: red green blue red green blue red"]
    params = SamplingParams(temperature=0, max_tokens=60, ignore_eos=True)
    expected = v1.run(prompts, params)
    with v1.drafting(DraftProcess(tmp_path, "--kind", "ngram")) as draft:
        results = v1.run(prompts, params)
        assert draft.stats()["mismatches"] == 0
    assert [r.tokens for r in results] == [e.tokens for e in expected]
    assert results[0].context == 256
    assert results[1].drafted > 0


def test_with_grammars(v1: Engine, tmp_path: Path) -> None:
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 12}, "age": {"type": "integer"}},
        "required": ["name", "age"],
        "additionalProperties": False,
    }
    grammars = [
        StructuredOutputsParams(json=schema),
        StructuredOutputsParams(choice=["positive", "negative", "neutral"]),
        None,
    ]
    prompts = [
        'Describe Maria, 34, as JSON like {"name": "Maria", "age": 34}.',
        "Is this review positive, negative or neutral? I loved every positive minute.",
        "one two three one two three one two",
    ]
    params = [
        SamplingParams(temperature=0, max_tokens=40, structured_outputs=grammar)
        for grammar in grammars
    ]
    expected = v1.run(prompts, params)
    before = v1.status()["drafted"]
    with v1.drafting(DraftProcess(tmp_path, "--kind", "ngram")):
        results = v1.run(prompts, params)
    assert [r.tokens for r in results] == [e.tokens for e in expected]
    assert json.loads(results[0].text).keys() == {"name", "age"}
    assert results[1].text in ("positive", "negative", "neutral")
    assert v1.status()["drafted"] > before


def test_sampling_keeps_its_distribution(v1: Engine, smollm2: Path, tmp_path: Path) -> None:
    prompt, count = "The weather today is", 100
    seeded = [
        SamplingParams(temperature=1.0, top_k=4, max_tokens=3, seed=seed, ignore_eos=True)
        for seed in range(2 * count)
    ]
    plain = v1.run([prompt] * count, seeded[:count])
    before = v1.status()
    with v1.drafting(DraftProcess(tmp_path, *model_options(smollm2))):
        speculated = v1.run([prompt] * count, seeded[count:])
    after = v1.status()
    accepted = after["accepted"] - before["accepted"]
    # Both ways of an outcome: a draft that was taken, and one that was replaced.
    assert 0 < accepted < after["drafted"] - before["drafted"]
    for position in range(3):
        p = homogeneity(
            [r.tokens[position] for r in plain], [r.tokens[position] for r in speculated]
        )
        assert p > 1e-4, f"token {position}: p = {p}"


def homogeneity(a: list[int], b: list[int]) -> float:
    """Return the p-value of a χ² test that two samples have one distribution."""
    common = [t for t in sorted(set(a + b)) if (a + b).count(t) >= 10]
    columns = [(a.count(t), b.count(t)) for t in common]
    columns.append((len(a) - sum(x for x, _ in columns), len(b) - sum(y for _, y in columns)))
    columns = [column for column in columns if sum(column)]
    share = len(a) / (len(a) + len(b))
    chi2 = sum(
        (x - share * (x + y)) ** 2 / (share * (x + y))
        + (y - (1 - share) * (x + y)) ** 2 / ((1 - share) * (x + y))
        for x, y in columns
    )
    freedom = torch.tensor((len(columns) - 1) / 2, dtype=torch.float64)
    half = torch.tensor(chi2 / 2, dtype=torch.float64)
    return float(torch.special.gammaincc(freedom, half))


def test_seeded_request_survives_chunked_prefill(v1: Engine, prompts: list[str]) -> None:
    longest = max(prompts, key=len)
    params = SamplingParams(temperature=1.0, max_tokens=6, seed=7, ignore_eos=True)
    first, again = (v1.run([longest, "Hello"], params) for _ in range(2))
    assert [r.tokens for r in first] == [r.tokens for r in again]
