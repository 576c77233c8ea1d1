from __future__ import annotations

import pytest

from rayspec.draft.base import DraftRequest
from rayspec.draft.build import build_drafter
from rayspec.draft.mirror import DraftSequence
from rayspec.draft.ngram import NgramDrafter
from rayspec.errors import ConfigError


def test_prompt_lookup_serves_any_tokenizer() -> None:
    drafter, vocab_size, tokenizer = build_drafter("ngram")
    assert isinstance(drafter, NgramDrafter)
    assert (vocab_size, tokenizer) == (None, None)


def test_random_drafts_stay_in_the_vocabulary_and_repeat_by_seed() -> None:
    requests = [DraftRequest(DraftSequence(0, 1, 50, 0.0, None, [1]), 50)]
    drafts = [build_drafter("random", vocab_size=7)[0].draft(requests) for _ in range(2)]
    assert drafts[0] == drafts[1]
    assert set(drafts[0][0]) == set(range(7))


@pytest.mark.parametrize(
    ("kind", "remedy"),
    [
        ("random", "kind random needs it"),
        ("model", "kind model needs a model folder"),
        ("oracle", "choose one of model, ngram, random"),
    ],
)
def test_what_is_missing_is_named(kind: str, remedy: str) -> None:
    with pytest.raises(ConfigError, match=remedy):
        build_drafter(kind)
