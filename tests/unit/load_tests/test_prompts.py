from __future__ import annotations

import pytest

from load_tests.prompts import PROMPTS, WORKLOADS, sample


def test_enough_and_varied() -> None:
    assert len(PROMPTS) == len({prompt.text for prompt in PROMPTS}) >= 200
    assert set(WORKLOADS) == {
        "code", "structured", "summarize", "chat", "creative", "multilingual",
    }  # fmt: skip
    assert all(sum(p.workload == name for p in PROMPTS) >= 30 for name in WORKLOADS)
    assert not any("{}" in prompt.text for prompt in PROMPTS)


def test_samples_are_balanced_and_repeatable() -> None:
    chosen = sample(32, seed=1)
    assert chosen == sample(32, seed=1) != sample(32, seed=2)
    assert len(set(chosen)) == 32
    counts = [sum(p.workload == name for p in chosen) for name in WORKLOADS]
    assert max(counts) - min(counts) <= 1
    assert {p.workload for p in sample(5, workloads=["code"])} == {"code"}
    assert sorted(sample(len(PROMPTS)), key=str) == sorted(PROMPTS, key=str)


def test_too_many() -> None:
    with pytest.raises(ValueError, match="only 42 prompts"):
        sample(43, workloads=["code"])
