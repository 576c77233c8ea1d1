"""`serve run deployments/gpu-1.yaml`: both lanes and a draft model share one GPU, over NCCL."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from load_tests import kill_draft
from load_tests.divergence import margin
from load_tests.streaming import Client, Reply
from rayspec.audit.lossless import NEAR_TIE
from tests.support.application import BASE_URL, Application

pytestmark = [pytest.mark.gpu, pytest.mark.e2e]

PROMPTS = [json.loads(line)["prompt"] for line in kill_draft.PROMPTS.read_text().splitlines()[:24]]


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Application]:
    log = tmp_path_factory.mktemp("serve") / "log"
    with Application("gpu-1.yaml", log) as application:
        yield application


async def both_lanes() -> tuple[list[Reply], list[Reply], list[float]]:
    """Return the answers of both lanes, and the margins of those that differ."""
    client = Client(BASE_URL, PROMPTS, max_tokens=96)
    await client.open()
    gate = asyncio.Semaphore(8)

    async def ask(prompt: int, wish: str) -> Reply:
        async with gate:
            return await client.stream(prompt, wish)

    numbers = range(len(PROMPTS))
    drafted = await asyncio.gather(*(ask(number, "on") for number in numbers))
    plain = await asyncio.gather(*(ask(number, "off") for number in numbers))
    margins = []
    for ours, theirs in zip(drafted, plain, strict=True):
        if ours.text != theirs.text:
            tokens = await client.logprobs(ours.prompt)
            margins.append(max(margin(tokens, reply.text) for reply in (ours, theirs)))
    await client.close()
    return drafted, plain, margins


def test_both_lanes_answer_alike_and_drafts_are_accepted(app: Application) -> None:
    before = app.metric("rayspec_position_accepted_tokens_total")
    drafted, plain, margins = asyncio.run(both_lanes())

    assert [reply.error for reply in (*drafted, *plain) if reply.error] == []
    assert all(reply.text for reply in (*drafted, *plain))
    assert all(value <= NEAR_TIE for value in margins), margins
    # The draft is the model itself: most of what it proposes is what the model says.
    app.wait_for(lambda: app.metric("rayspec_position_accepted_tokens_total") > before, 10)
    accepted = app.metric("rayspec_position_accepted_tokens_total")
    assert accepted > app.metric("rayspec_position_drafted_tokens_total") / 2
    assert app.metric("rayspec_link_deaths_total") == 0


def test_a_killed_draft_costs_no_request(app: Application, tmp_path: Path) -> None:
    figures = tmp_path / "kill.json"
    arguments = ["--concurrency", "8", "--limit", "16", "--max-tokens", "256"]
    status = kill_draft.main([*arguments, "--before", "5", "--after", "5", "--json", str(figures)])

    facts = json.loads(figures.read_text())
    assert status == 0, facts
    assert facts["lost"] == 0
    assert facts["phases"]["hit"]["requests"] > 0
    assert facts["phases"]["after"]["requests"] > 0
    assert app.metric("rayspec_link_deaths_total") == 1
