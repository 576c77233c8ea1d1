"""Verifies a running application: the same answers with speculation as without, only sooner."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from rayspec import __version__
from rayspec.audit import compare, sampled, speed
from rayspec.audit.client import Client, NotVerifiable
from rayspec.audit.prompts import Prompt, to_sample
from rayspec.audit.report import Report, RequestReport
from rayspec.audit.settings import Settings
from rayspec.audit.turns import Pair, ask_greedy, ask_sampled

__all__ = ["answers", "verify"]


def answers(prompts: Sequence[Prompt], settings: Settings) -> int:
    """Return how many answers a verification asks for."""
    drawn = len(to_sample(prompts, settings.sample_prompts)) * settings.samples
    return 2 * (len(prompts) * settings.rounds + drawn)


async def verify(
    client: Client, prompts: Sequence[Prompt], settings: Settings, tick: Callable[[], object]
) -> Report:
    """Ask both lanes everything and report; raises `NotVerifiable` where one is missing.

    `tick` is called after each answer.
    """
    begun = datetime.now(UTC)
    await client.check()
    pairs = await ask_greedy(client, prompts, settings, tick)
    if not any(answer.drafted for pair in pairs for answer in pair.speculative):
        raise NotVerifiable(
            "nothing was drafted for any greedy request, so nothing was verified: "
            "look at rayspec_link_misses_total in /metrics, or ask for longer answers"
        )
    differences = await compare.differences(client, pairs, settings.margin)
    drawn = []
    if settings.samples:
        chosen = to_sample(prompts, settings.sample_prompts)
        drawn = await ask_sampled(client, chosen, settings, tick)
    compared = sampled.compare(drawn, settings.sample_tokens, settings.alpha)
    named = {
        token
        for each in compared
        for test in each.tests
        for token in sampled.token_ids(test.result.most)
    }
    await client.check()  # a draft lost on the way would have made the rest plain
    parted = {difference.prompt for difference in differences}
    return Report(
        rayspec=__version__,
        url=client.url,
        model=client.models[0],
        begun=begun.isoformat(timespec="seconds"),
        seconds=(datetime.now(UTC) - begun).total_seconds(),
        settings=settings,
        requests=tuple(_request(pair, pair.prompt.number not in parted) for pair in pairs),
        unstable=compare.unstable(pairs),
        differences=tuple(differences),
        classes=tuple(speed.measure(pairs)),
        sampled=tuple(compared),
        token_texts={token: await client.text([token]) for token in sorted(named)},
    )


def _request(pair: Pair, equal: bool) -> RequestReport:
    of_all = speed.measure([pair])[-1]
    return RequestReport(
        prompt=pair.prompt.number,
        workload_class=pair.workload_class,
        asked=pair.prompt.preview,
        equal=equal,
        tokens=len(pair.plain[0].tokens),
        drafted=of_all.drafted,
        accepted=of_all.accepted,
        plain=of_all.plain,
        speculative=of_all.speculative,
    )
