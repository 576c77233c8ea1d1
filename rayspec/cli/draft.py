"""`rayspec draft`: check a draft before it serves, and let a new version take over."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rayspec.cli import draft_promote

if TYPE_CHECKING:
    from rayspec.distill.check import PairReport

app = typer.Typer(
    help="Check drafts against their targets, and change them while they serve.",
    no_args_is_help=True,
)
app.command("promote")(draft_promote.promote)


@app.command()
def check(
    draft: Annotated[str, typer.Argument(help="The draft: folder or Hugging Face id.")],
    target: Annotated[str, typer.Argument(help="The target: alias, Hugging Face id or folder.")],
    prompts: Annotated[
        Path | None,
        typer.Option(
            help='Your own, JSONL: {"class": …, "prompt": …} or bodies of OpenAI requests. '
            "Built-in ones that no draft is trained on if left out."
        ),
    ] = None,
    each: Annotated[int, typer.Option(min=1, help="At most so many prompts of every class.")] = 8,
    tokens: Annotated[int, typer.Option(min=8, help="Longest answer, tokens.")] = 96,
    calibration: Annotated[
        Path | None,
        typer.Option(help="Step times from a file of `rayspec calibrate`; timed here if left out."),
    ] = None,
    device: Annotated[str, typer.Option(help="cuda, cuda:N or cpu; by default what is there.")] = (
        "auto"
    ),
    other_weights: Annotated[
        bool,
        typer.Option(
            "--other-weights",
            help="Allow a target with other weights than the draft's, such as a fine-tuned one.",
        ),
    ] = False,
    json: Annotated[Path | None, typer.Option(help="Write everything to this file.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
) -> None:
    """Check that DRAFT belongs to TARGET and fits, and measure what it would gain.

    The target answers prompts greedily and at temperature 1; the draft is judged on these texts. A
    draft without `rayspec.json` is measured as well. `greedy` is accepted ÷ tested draft tokens at
    temperature 0, `sampled` the chance that one is accepted at temperature 1, and the gain is that
    of the best draft length up to 4, for one request at a time.

    Exit codes: 0 the pair may serve, 1 it may not, 2 wrong usage.
    """
    import json as json_format

    if json is not None and not json.absolute().parent.is_dir():
        raise typer.BadParameter(f"there is no folder {json.parent}", param_hint="--json")
    report = _check(draft, target, prompts, each, tokens, calibration, device, other_weights, quiet)
    if json is not None:
        json.write_text(json_format.dumps(report.as_dict(), indent=1) + "\n", encoding="utf-8")
    _tell(report)
    if not report.passed:
        raise typer.Exit(1)


def _check(
    draft: str,
    target: str,
    prompts: Path | None,
    each: int,
    tokens: int,
    calibration: Path | None,
    device: str,
    other_weights: bool,
    quiet: bool,
) -> PairReport:
    import torch

    from rayspec.cli.progress import Bar
    from rayspec.distill import student
    from rayspec.distill.check import PairReport, ask, facts, judge, thin
    from rayspec.distill.prompts import held_out, own_prompts
    from rayspec.distill.spec import DRAFT_LENGTH
    from rayspec.distill.speed import calibrated
    from rayspec.distill.trim import FILE
    from rayspec.draft.identity import model_vocab_size
    from rayspec.draft.manifest import DraftManifest
    from rayspec.draft.vocabulary import read_token_ids
    from rayspec.models import resolve
    from rayspec.planning.calibration import Calibration

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    steps = calibrated(Calibration.load(calibration), DRAFT_LENGTH) if calibration else None
    on, ours, theirs = torch.device(device), resolve(draft), resolve(target)
    known = facts(ours, theirs, on, other_weights=other_weights)
    first = PairReport(draft, target, known)
    if not first.passed:
        return first
    dtype = torch.bfloat16 if on.type == "cuda" else torch.float32
    asked, drafting = (student.load(folder, dtype, on) for folder in (theirs, ours))
    questions = own_prompts(prompts) if prompts else [q for q in held_out() if not q.temperature]
    questions = thin(questions, each)
    torch.manual_seed(0)
    with Bar(2 * len(questions), quiet) as bar:
        texts = ask(asked, theirs, questions, tokens, told=bar.update)
    trim = ours / FILE
    drafted = read_token_ids(str(trim), model_vocab_size(ours)) if trim.exists() else None
    found, steps, classes = judge(
        asked, drafting, texts, DraftManifest.load(ours), drafted=drafted, steps=steps
    )
    return PairReport(draft, target, [*known, *found], steps, classes)


def _tell(report: PairReport) -> None:
    for finding in report.findings:
        typer.echo(f"{finding.verdict:9} {finding.what:11} {finding.detail}")
    if report.classes is None or report.steps is None:
        return
    typer.echo(
        "\nclass          tokens   greedy  recorded  tokens/step  gain         sampled  gain"
    )
    for name, each in report.classes.items():
        found = each.acceptance
        gains = [
            "-" if gain is None else f"{gain.speedup:.2f} (K={gain.k})"
            for gain in (each.greedy, each.sampled)
        ]
        per_step = "-" if found.tokens_per_step is None else f"{found.tokens_per_step:.2f}"
        typer.echo(
            f"{name:13} {found.tokens:7}  {_share(found.greedy):>7}  {_share(each.recorded):>8}  "
            f"{per_step:>11}  {gains[0]:11}  {_share(found.sampled):>7}  {gains[1]}"
        )
    steps = report.steps
    drafted = ", ".join(f"{1e3 * seconds:.1f}" for seconds in steps.speculative)
    typer.echo(
        f"\nsteps ({steps.source}): {1e3 * steps.plain:.1f} ms without drafts, {drafted} ms with "
        f"1 to {len(steps.speculative)}"
    )


def _share(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"
