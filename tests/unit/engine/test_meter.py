"""What a request generated, added up from vLLM's own outputs."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from vllm.v1.metrics.stats import RequestSpecDecodeMetrics

from rayspec.engine.messages import Generation
from rayspec.engine.serving import Meter


def choice(tokens: int, *steps: tuple[int, int]) -> Any:
    """Return a finished choice whose steps drafted and accepted so many tokens."""
    metrics = RequestSpecDecodeMetrics.new(2)
    for drafted, accepted in steps:
        metrics.observe(drafted, accepted)
    return SimpleNamespace(
        index=0,
        text="x" * tokens,
        token_ids=[0] * tokens,
        spec_decode_metrics=metrics if steps else None,
        finish_reason="stop" if steps else None,
    )


def test_choices_and_their_acceptance_add_up() -> None:
    meter = Meter()
    output = SimpleNamespace(prompt_token_ids=[1, 2, 3], outputs=[choice(4, (2, 2), (2, 0))])
    meter.start(output)
    meter.add(output)
    meter.add(SimpleNamespace(outputs=[choice(1), choice(3, (2, 1))]))

    assert meter.total.first_token_s is not None
    assert replace(meter.total, first_token_s=None) == Generation(
        prompt_tokens=3,
        output_tokens=8,
        steps=3,
        drafted=6,
        accepted=3,
        by_accepted=(1, 1, 1),
        finish_reasons=("stop", "stop"),
    )
    assert meter.texts is None


def test_texts_are_kept_where_they_are_wanted() -> None:
    meter = Meter(keep_texts=True)
    for piece in (choice(2), choice(1, (1, 1))):
        meter.add(SimpleNamespace(request_id="a", outputs=[piece]))

    assert meter.texts == [("xxx", "stop")]
