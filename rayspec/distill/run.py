"""Runs a distillation: prompts, answers, scores, training, measurement, a model folder.

Every phase leaves its result in the work folder, so that the same command goes on after a stop.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from itertools import chain, islice
from pathlib import Path
from typing import Any

import torch

import rayspec
from rayspec.distill import prompts, student
from rayspec.distill.acceptance import measure
from rayspec.distill.answer import QUESTION_TOKENS, answer_all
from rayspec.distill.compose import compose
from rayspec.distill.encode import Encoder
from rayspec.distill.generate import TransformersGenerator
from rayspec.distill.harvest import harvest
from rayspec.distill.progress import Counted, Every, brief
from rayspec.distill.score import Scores, score
from rayspec.distill.spec import DRAFT_LENGTH, DistillSpec
from rayspec.distill.texts import Texts
from rayspec.distill.train import Progress, Training, learn
from rayspec.distill.trim import frequent_tokens, write_trim
from rayspec.distill.workers import default_workers, run_workers
from rayspec.draft.identity import model_max_len, model_vocab_size
from rayspec.draft.manifest import Acceptance, Binding, DraftManifest
from rayspec.errors import ConfigError

__all__ = ["Distillation"]

_PROMPT_TOKENS = 1024
_QUESTIONS_A_MINUTE = 60_000  # of generation: more than three engines answer
_LAST_S = 0.04  # of the time, for the last measurement and writing
_LEAST_HELD_OUT = 12
_MEASURES = 8  # while training
_COMPLETE = "complete"


class Distillation:
    """One distillation; `say` gets a line at a time.

    `build` makes the untrained draft, a causal language model of transformers in float32 with the
    vocabulary of the target, and `shape` says in a few words which one that is.
    """

    def __init__(
        self, spec: DistillSpec, build: Callable[[], Any], shape: str, say: Callable[[str], None]
    ) -> None:
        spec.check()
        self.spec, self.build, self.shape, self.say = spec, build, shape, say
        self._began = time.monotonic()
        self._question_file = spec.work / "questions.jsonl"

    def run(self) -> DraftManifest:
        """Go through all phases that are not done yet, and return the draft's description."""
        spec = self.spec
        self._claim(spec.work)
        device = self._device()
        if device.type == "cuda":
            # TF32 holds what bfloat16 holds: heads are multiplied in it, into logits of 32 bits.
            torch.set_float32_matmul_precision("high")
        self._answers(device)
        texts = Texts.load(spec.work / "texts")
        held_out, others = texts.pick(texts.held_out), texts.pick(~texts.held_out)
        if not len(held_out) or not len(others):
            raise ConfigError("minutes", spec.minutes, "were too few for any answer; give more")
        rows = others.rows(spec.join, spec.width, spec.seed)
        self.say(
            f"texts: {len(others)} with {others.answer_tokens / 1e6:.2f}M answered tokens, and "
            f"{len(held_out)} held out"
        )
        narrow = torch.bfloat16 if device.type == "cuda" else torch.float32
        target = student.load(spec.target, narrow, device)
        scores = self._scores(target, rows)
        draft = self.build().to(device)
        size = sum(weight.numel() for weight in draft.parameters())
        self.say(f"draft: {size / 1e6:.2f}M weights, {self.shape}")
        training = self._train(target, draft, rows, scores, held_out)
        return self._finish(
            target, draft, others, held_out, {"weights": size, "shape": self.shape, **training}
        )

    def _claim(self, work: Path) -> None:
        """Make the work folder, or make sure that what is in it is of the same distillation."""
        work.mkdir(parents=True, exist_ok=True)
        mine, file = self.spec.data_identity(), work / "settings.json"
        if not file.exists():
            file.write_text(json.dumps(mine, indent=1) + "\n", encoding="utf-8")
            return
        theirs = json.loads(file.read_text(encoding="utf-8"))
        for name, value in mine.items():
            if theirs.get(name) != value:
                raise ConfigError(
                    name, value, f"{work} has texts made with {theirs.get(name)}; give another one"
                )

    def _device(self) -> torch.device:
        if self.spec.device != "auto":
            return torch.device(self.spec.device)
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def _left(self, share: float) -> float:
        """Return the seconds from now until a share of the time is over."""
        return self._began + share * self.spec.minutes * 60 - time.monotonic()

    def _questions(self) -> Path:
        """Return the file of all questions, which is made unless it is there."""
        spec, file = self.spec, self._question_file
        if file.exists():
            return file
        about: dict[str, Any]
        if spec.prompts or spec.text:
            own = prompts.own_prompts(spec.prompts) if spec.prompts else []
            own += prompts.own_text(spec.text) if spec.text else []
            asked = prompts.split(own, spec.seed)
            about = {"prompts": "the user's own", "count": len(own)}
        else:
            self.say("prompts: reading what Python packages and Debian's documentation carry")
            found = harvest(spec.seed)
            about = {
                "prompts": "made up by rayspec (Apache-2.0) from its own phrases and from what "
                "Python packages and Debian documentation carry, and by the target",
                **found.describe(),
            }
            most = int(_QUESTIONS_A_MINUTE * spec.minutes * spec.generation_share) + 1000
            made = islice(compose(found, spec.seed), spec.texts or most)
            asked = list(chain(prompts.held_out(), made))
        if spec.texts is not None:
            kept = [question for question in asked if question.held_out]
            thin = max(1, len(kept) // max(_LEAST_HELD_OUT, spec.texts // 4))
            asked = kept[::thin] + asked[len(kept) :][: spec.texts]
        about["answers"] = "by the target"
        (spec.work / "data.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
        self.say(f"prompts: {prompts.write(asked, file)} to ask")
        return file

    def _answers(self, device: torch.device) -> None:
        spec, folder = self.spec, self.spec.work / "texts"
        if (folder / _COMPLETE).exists():
            return
        folder.mkdir(exist_ok=True)
        backend = spec.backend
        if backend == "auto":
            backend = "vllm" if device.type == "cuda" else "transformers"
        said = Counted(self.say)
        # A started command that is stopped and goes on has its whole share again.
        deadline = time.time() + max(self._left(spec.generation_share), 0)
        job: dict[str, Any] = {
            "answer_tokens": spec.answer_tokens,
            "max_len": min(
                model_max_len(spec.target),
                max(_PROMPT_TOKENS, QUESTION_TOKENS) + spec.answer_tokens,
            ),
            "deadline": deadline,
        }
        if backend == "vllm":
            workers = spec.engines or default_workers(spec.target)
            self.say(f"answers: {workers} engines of vLLM start")
            job |= {
                "target": str(spec.target),
                "questions": str(self._question_file),
                "folder": str(folder),
                "seed": spec.seed,
                "piece": 1024,
            }
            run_workers(job, workers, spec.work / "vllm.log", said, meanwhile=self._questions)
        else:
            model = student.load(spec.target, torch.float32, device)
            encoder = Encoder(spec.target)
            torch.manual_seed(spec.seed)
            answer_all(
                prompts.read(self._questions()),
                encoder,
                TransformersGenerator(model, encoder.end),
                folder,
                "t0",
                piece=32,
                told=said,
                **job,
            )
        (folder / _COMPLETE).touch()

    def _scores(self, target: Any, rows: Texts) -> Scores:
        spec, folder = self.spec, self.spec.work / "scores"
        if not (folder / _COMPLETE).exists():
            said = Every(10.0, self.say)
            score(
                target,
                rows,
                min(spec.top_k, model_vocab_size(spec.target)),
                folder,
                budget=max(spec.batch_tokens, spec.width),
                progress=lambda done: said(
                    f"scores: {done / 1e6:.2f}M of {rows.answer_tokens / 1e6:.2f}M tokens"
                ),
            )
            (folder / _COMPLETE).touch()
            self.say(f"scores: the target's {spec.top_k} likeliest tokens at every place")
        return Scores.load(folder)

    def _train(
        self, target: Any, draft: Any, rows: Texts, scores: Scores, held_out: Texts
    ) -> dict[str, Any]:
        spec = self.spec
        left = self._left(1 - _LAST_S)
        training = Training(
            batch_tokens=spec.batch_tokens,
            rate=spec.rate,
            loss=spec.loss,
            steps=spec.steps,
            deadline=time.monotonic() + max(left, 0.2 * spec.minutes * 60),
            seed=spec.seed,
        )
        said = Every(10.0, self.say)
        some = held_out if target.device.type == "cuda" else _few(held_out)
        began, tokens, measured, now = time.monotonic(), 0, 0, None
        with closing(learn(draft, rows, scores, training, self._checkpoint())) as steps:
            for now in steps:
                tokens += now.tokens
                if said.due():
                    rate = tokens / (time.monotonic() - began)
                    said(f"training: {_where(now, spec)}, {rate:.0f} tokens/s")
                if now.total and now.step * _MEASURES // now.total > measured < _MEASURES - 1:
                    measured = now.step * _MEASURES // now.total
                    draft.eval()
                    found = measure(target, draft, some)
                    draft.train()
                    self.say(f"training: {_where(now, spec)}; held out {brief(found)}")
        return {
            "steps": now and now.step,
            "loss": spec.loss,
            "last_loss": now and round(float(now.loss), 4),
            "batch_tokens": spec.batch_tokens,
            "rate": spec.rate,
            "top_k": spec.top_k,
            "seed": spec.seed,
            "minutes": spec.minutes,
            "device": torch.cuda.get_device_name() if target.device.type == "cuda" else "cpu",
        }

    def _checkpoint(self) -> Path:
        """Return where this training is kept; one of another shape or loss has another place."""
        spec = self.spec
        how = (self.shape, spec.loss, spec.batch_tokens, spec.rate, spec.steps, spec.seed)
        name = hashlib.sha256(repr(how).encode()).hexdigest()[:8]
        return spec.work / f"checkpoint-{name}.pt"

    def _finish(
        self, target: Any, draft: Any, others: Texts, held_out: Texts, training: dict[str, Any]
    ) -> DraftManifest:
        spec = self.spec
        made = spec.work / "draft"
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir()
        student.write(draft, spec.target, made)
        ids = None
        if spec.vocab_trim:
            always = Encoder(spec.target).tokenizer.all_special_ids
            chosen = frequent_tokens(others, spec.vocab_trim, model_vocab_size(spec.target), always)
            training["vocab_trim"] = write_trim(chosen, others, made)
            ids = torch.tensor(chosen)
        # As it will be served: from the file, in its 16 bits.
        written = student.load(made, target.dtype, target.device)
        found = measure(target, written, held_out, drafted=ids)
        data = json.loads((spec.work / "data.json").read_text(encoding="utf-8"))
        data |= {"texts": len(others), "answered_tokens": others.answer_tokens}
        manifest = DraftManifest(
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            rayspec=rayspec.__version__,
            target=Binding.of(spec.target, spec.target_name),
            k=DRAFT_LENGTH,
            acceptance={name: Acceptance(**each.as_dict()) for name, each in found.items()},
            data=data,
            training=training,
        )
        manifest.save(made)
        spec.out.parent.mkdir(parents=True, exist_ok=True)
        if spec.out.exists():  # empty: `check` has seen to that
            spec.out.rmdir()
        shutil.move(made, spec.out)
        self._checkpoint().unlink()
        return manifest


def _where(now: Progress, spec: DistillSpec) -> str:
    return f"step {now.step} of {now.total or '?'}, {spec.loss} {float(now.loss):.3f}"


def _few(texts: Texts, each: int = 2) -> Texts:
    """Return the first texts of each class and temperature, for where measuring takes time."""
    seen: dict[tuple[str, bool], int] = {}
    which = torch.zeros(len(texts), dtype=torch.bool).numpy()
    for index, (name, temperature) in enumerate(
        zip(texts.classes, texts.temperatures, strict=True)
    ):
        key = str(name), bool(temperature > 0)
        seen[key] = seen.get(key, 0) + 1
        which[index] = seen[key] <= each
    return texts.pick(which)
