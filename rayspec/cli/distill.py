"""`rayspec distill`: train a draft for a target on what the target says."""

from __future__ import annotations

import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rayspec.draft.manifest import DraftManifest


class Loss(StrEnum):
    """Divergences of the draft from its target."""

    KL = "kl"
    REVERSE_KL = "reverse-kl"
    TV = "tv"


class Backend(StrEnum):
    """What answers the prompts."""

    AUTO = "auto"
    VLLM = "vllm"
    TRANSFORMERS = "transformers"


_SHAPE, _DATA, _TRAINING = "Shape of the draft", "Data", "Training"


def distill(
    target: Annotated[str, typer.Argument(help="Alias (smollm2), Hugging Face id, or folder.")],
    out: Annotated[Path, typer.Option(help="The model folder to write.")],
    minutes: Annotated[
        float, typer.Option(min=0.05, help="Of the whole command; all phases keep to it.")
    ] = 15.0,
    work: Annotated[
        Path | None,
        typer.Option(
            help="Where texts, scores and checkpoints go. OUT.work by default, which is removed in "
            "the end; one that is given stays, so that another draft can learn from its texts."
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="cuda, cuda:N or cpu; by default what is there.")] = (
        "auto"
    ),
    seed: Annotated[int, typer.Option(help="Of prompts, order and weights.")] = 0,
    preset: Annotated[
        str | None,
        typer.Option(
            help="tiny, small, shallow or wide; by the target's size if left out.",
            rich_help_panel=_SHAPE,
        ),
    ] = None,
    layers: Annotated[
        int | None, typer.Option(min=1, help="Instead of the preset's.", rich_help_panel=_SHAPE)
    ] = None,
    hidden: Annotated[
        int | None, typer.Option(min=16, help="Instead of the preset's.", rich_help_panel=_SHAPE)
    ] = None,
    intermediate: Annotated[
        int | None, typer.Option(min=16, help="Instead of the preset's.", rich_help_panel=_SHAPE)
    ] = None,
    prompts: Annotated[
        Path | None,
        typer.Option(
            help='Your users\' prompts: JSONL, {"class": …, "prompt": …} or bodies of OpenAI '
            "requests. Some are held out to measure by. Built-in ones if left out.",
            rich_help_panel=_DATA,
        ),
    ] = None,
    text: Annotated[
        Path | None,
        typer.Option(
            help="A file or folder of texts that the target goes on with.", rich_help_panel=_DATA
        ),
    ] = None,
    texts: Annotated[
        int | None,
        typer.Option(min=1, help="Answer at most so many prompts.", rich_help_panel=_DATA),
    ] = None,
    answer_tokens: Annotated[
        int, typer.Option(min=8, help="Longest answer, tokens.", rich_help_panel=_DATA)
    ] = 256,
    backend: Annotated[
        Backend,
        typer.Option(help="What answers: vLLM on a GPU by default.", rich_help_panel=_DATA),
    ] = Backend.AUTO,
    engines: Annotated[
        int,
        typer.Option(
            min=0, help="vLLM engines that share the GPU; 0: by cores.", rich_help_panel=_DATA
        ),
    ] = 0,
    generation_share: Annotated[
        float, typer.Option(help="Of the time, until answers end.", rich_help_panel=_DATA)
    ] = 0.42,
    loss: Annotated[
        Loss, typer.Option(help="What training makes small.", rich_help_panel=_TRAINING)
    ] = Loss.KL,
    top_k: Annotated[
        int,
        typer.Option(
            help="Tokens whose probability is stored at every place; the others are one event.",
            rich_help_panel=_TRAINING,
        ),
    ] = 32,
    batch_tokens: Annotated[
        int, typer.Option(help="Tokens of a step, padding included.", rich_help_panel=_TRAINING)
    ] = 32768,
    rate: Annotated[
        float, typer.Option(help="Greatest learning rate.", rich_help_panel=_TRAINING)
    ] = 2e-3,
    steps: Annotated[
        int | None,
        typer.Option(
            min=1, help="So many, instead of what the time allows.", rich_help_panel=_TRAINING
        ),
    ] = None,
    vocab_trim: Annotated[
        int,
        typer.Option(
            min=0,
            help="Also write the list of so many most frequent tokens, for `draft.vocab_trim`.",
            rich_help_panel=_TRAINING,
        ),
    ] = 0,
) -> None:
    """Train a draft for TARGET on what TARGET says, on one GPU (tiny models: on CPU as well).

    The target answers prompts; a small Llama with its tokenizer learns to predict the answers as
    the target does. Tells the acceptance on held-out prompts of each workload class as it goes, and
    writes an ordinary model folder with `rayspec.json`, which binds the draft to its target and
    says how good it is and what it learned from. Ctrl-C keeps what is done: the same command goes
    on.
    """
    import json
    import shutil
    from functools import partial

    from rayspec.distill.presets import PRESETS, default_preset
    from rayspec.distill.run import Distillation
    from rayspec.distill.spec import DistillSpec
    from rayspec.distill.student import build
    from rayspec.models import resolve

    folder = resolve(target, progress=True)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    name = preset or default_preset(config)
    if name not in PRESETS:
        raise typer.BadParameter(f"is none of {', '.join(PRESETS)}", param_hint="--preset")
    began = time.monotonic()
    spec = DistillSpec(
        target=folder,
        target_name=target,
        out=out.absolute(),
        work=(work or out.with_name(out.name + ".work")).absolute(),
        prompts=prompts and prompts.absolute(),
        text=text and text.absolute(),
        texts=texts,
        steps=steps,
        minutes=minutes,
        generation_share=generation_share,
        answer_tokens=answer_tokens,
        backend=backend.value,
        engines=engines,
        loss=loss.value,
        top_k=top_k,
        batch_tokens=batch_tokens,
        rate=rate,
        vocab_trim=vocab_trim,
        device=device,
        seed=seed,
    )
    shape = PRESETS[name].resized(hidden, layers, intermediate)
    run = Distillation(
        spec,
        partial(build, folder, shape, seed=seed),
        str(shape),
        lambda line: typer.echo(f"{time.monotonic() - began:6.0f} s  {line}", err=True),
    )
    try:
        manifest = run.run()
    except KeyboardInterrupt:
        typer.echo(f"rayspec: stopped; the same command goes on from {spec.work}", err=True)
        raise typer.Exit(130) from None
    if work is None:
        shutil.rmtree(spec.work)
    _tell(manifest, out)


def _tell(manifest: DraftManifest, out: Path) -> None:
    typer.echo(f"class          greedy  sampled  tokens/step at K = {manifest.k}")
    for name, each in manifest.acceptance.items():
        greedy, sampled = (
            "-" if share is None else f"{share:.1%}" for share in (each.greedy, each.sampled)
        )
        steps = "-" if each.tokens_per_step is None else f"{each.tokens_per_step:.2f}"
        typer.echo(f"{name:13} {greedy:>7}  {sampled:>7}  {steps}")
    typer.echo(f"{out}; `rayspec draft check {out} {manifest.target.name}` measures it here")
