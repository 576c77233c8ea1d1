"""What a request generated, added up from vLLM's own outputs."""

from __future__ import annotations

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
    return SimpleNamespace(token_ids=[0] * tokens, spec_decode_metrics=metrics if steps else None)


def test_choices_and_their_acceptance_add_up() -> None:
    meter = Meter()
    output = SimpleNamespace(prompt_token_ids=[1, 2, 3], outputs=[choice(4, (2, 2), (2, 0))])
    meter.start(output)
    meter.add(output)
    meter.add(SimpleNamespace(outputs=[choice(1), choice(3, (2, 1))]))

    assert meter.total == Generation(
        prompt_tokens=3, output_tokens=8, steps=3, drafted=6, accepted=3, by_accepted=(1, 1, 1)
    )
