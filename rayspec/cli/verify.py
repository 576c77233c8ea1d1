"""`rayspec verify`: are answers with speculation those without it, and how much sooner are they."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rayspec.audit.settings import FailOn, Settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rayspec.audit.prompts import Prompt
    from rayspec.audit.report import Report

_DEFAULT = Settings()


def verify(
    url: Annotated[str, typer.Option(help="The running application.")] = "http://127.0.0.1:8000",
    prompts: Annotated[
        Path | None,
        typer.Option(
            help='JSONL: {"class": …, "prompt": …} or bodies of OpenAI requests, one a line; '
            '"sampled": true marks those for the distribution test. A built-in set if left out.'
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Use the first prompts only.")] = None,
    max_tokens: Annotated[
        int, typer.Option(min=2, help="Longest greedy answer, tokens.")
    ] = _DEFAULT.max_tokens,
    rounds: Annotated[
        int, typer.Option(min=1, help="Greedy answers per prompt and lane.")
    ] = _DEFAULT.rounds,
    concurrency: Annotated[
        int, typer.Option(min=1, help="Greedy requests at a time.")
    ] = _DEFAULT.concurrency,
    margin: Annotated[
        float, typer.Option(min=0, help="Nats between two tokens that rounding may decide.")
    ] = _DEFAULT.margin,
    samples: Annotated[
        int, typer.Option(min=0, help="Sampled answers per lane and prompt; 0 for none.")
    ] = _DEFAULT.samples,
    sample_prompts: Annotated[
        int, typer.Option(min=1, help="Prompts that are sampled.")
    ] = _DEFAULT.sample_prompts,
    sample_tokens: Annotated[
        int, typer.Option(min=2, help="Length of sampled answers.")
    ] = _DEFAULT.sample_tokens,
    sample_concurrency: Annotated[
        int, typer.Option(min=1, help="Sampled at a time.")
    ] = _DEFAULT.sample_concurrency,
    temperature: Annotated[
        float, typer.Option(min=0.01, help="Of sampled answers whose request has none.")
    ] = _DEFAULT.temperature,
    alpha: Annotated[
        float,
        typer.Option(min=1e-3, max=0.5, help="Chance of a false alarm of all distribution tests."),
    ] = _DEFAULT.alpha,
    fail_on: Annotated[
        FailOn, typer.Option(help="Greedy differences that fail; explained ones too, if so.")
    ] = FailOn.UNEXPLAINED,
    json: Annotated[Path | None, typer.Option(help="Write everything to this file.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write one readable page.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
) -> None:
    """Ask a running application the same with and without speculation, and compare.

    Greedy answers must be equal token for token, or part at a near tie of the model; sampled ones
    must come from one distribution. Tells acceptance and speed per workload class.

    Exit codes: 0 equal or explained, 1 an unexplained difference or another distribution, 2 wrong
    usage or nothing to compare, such as a lane or draft that is not there.
    """
    from rayspec.audit.client import NotVerifiable
    from rayspec.audit.page import render
    from rayspec.audit.prompts import built_in, read
    from rayspec.errors import ConfigError

    if 0 < samples < 20:
        raise typer.BadParameter("fewer than 20 show nothing; 0 for none", param_hint="--samples")
    for option, file in (("--json", json), ("--html", html)):
        if file is not None and not file.absolute().parent.is_dir():
            raise typer.BadParameter(f"there is no folder {file.parent}", param_hint=option)
    settings = Settings(
        max_tokens=max_tokens,
        rounds=rounds,
        concurrency=concurrency,
        margin=margin,
        samples=samples,
        sample_prompts=sample_prompts,
        sample_tokens=sample_tokens,
        sample_concurrency=sample_concurrency,
        temperature=temperature,
        alpha=alpha,
    )
    try:
        asked = read(prompts, limit) if prompts else built_in(limit)
        report = asyncio.run(_verify(url, asked, settings, quiet))
    except (NotVerifiable, ConfigError) as error:
        typer.echo(f"rayspec: {error}", err=True)
        raise typer.Exit(2) from None
    if json:
        json.write_text(report.to_json(fail_on), encoding="utf-8")
    if html:
        html.write_text(render(report, fail_on), encoding="utf-8")
    _tell(report)
    if not report.passed(fail_on):
        raise typer.Exit(1)
    if report.sampled and len(report.idle) == len(report.sampled):
        typer.echo('rayspec: mark prompts that are drafted with "sampled": true', err=True)
        raise typer.Exit(2)


async def _verify(url: str, prompts: Sequence[Prompt], settings: Settings, quiet: bool) -> Report:
    from tqdm import tqdm

    from rayspec.audit.client import Client
    from rayspec.audit.verify import answers, verify

    with tqdm(total=answers(prompts, settings), unit="answer", disable=quiet) as bar:
        async with Client(url) as client:
            return await verify(client, prompts, settings, bar.update)


def _tell(report: Report) -> None:
    typer.echo("class         prompts  equal  explained  not  accepted  tokens/step  times as fast")
    for each in report.classes:
        here = [
            difference
            for difference in report.differences
            if each is report.classes[-1] or difference.workload_class == each.workload_class
        ]
        tied = sum(difference.verdict.explained for difference in here)
        faster = each.faster["e2e_ms"]
        accepted = "-" if each.acceptance is None else f"{each.acceptance:.0%}"
        typer.echo(
            f"{each.workload_class:13} {each.prompts:7}  {each.prompts - len(here):5}  {tied:9}  "
            f"{len(here) - tied:3}  {accepted:>8}  {each.tokens_per_step:11.2f}  "
            f"{faster.value if faster else float('nan'):13.2f}"
        )
    for difference in report.differences:
        verdict = difference.verdict
        margin = "" if verdict.margin is None else f", margin {verdict.margin:.3f} nats"
        typer.echo(
            f"request {difference.prompt} parts at token {difference.where.position + 1}: "
            f"{verdict.reason}{margin}"
        )
    typer.echo(report.greedy_sentence)
    typer.echo(report.sampled_sentence)
    typer.echo(report.speed_sentence)
    if report.weak:
        numbers = ", ".join(str(each.prompt) for each in report.weak)
        typer.echo(f"few sampled answers of request {numbers} were drafted: their tests are weak")
