"""Drives a draft model through prefill and decoding, and transformers over the same tokens.

vLLM keeps state in its process, so that these functions run in one of their own; see `in_process`.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch

from tests.support.chunks import chunks_of

_T = TypeVar("_T")


@contextmanager
def process() -> Iterator[Callable[..., Any]]:
    """Yield `call(function, *args)`, which runs in one other process until the end."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:

        def call(function: Callable[..., _T], *args: Any, **kwargs: Any) -> _T:
            return pool.submit(function, *args, **kwargs).result(timeout=280)

        yield call


@dataclass
class Step:
    """Newest logits of each row, [rows, vocab] float32, and the tokens that led to them."""

    name: str
    logits: torch.Tensor
    texts: list[list[int]]


@dataclass
class Sequences:
    """Token lists with blocks of a pool, out of order and interleaved."""

    texts: list[list[int]]
    block_size: int
    max_blocks: int
    tables: torch.Tensor = field(init=False)  # [rows, max_blocks] int32

    def __post_init__(self) -> None:
        rows = len(self.texts)
        order = torch.randperm(rows * self.max_blocks, generator=torch.Generator().manual_seed(1))
        # Block 0 is left to rows that are not in use.
        self.tables = (order + 1).int().view(rows, self.max_blocks)

    @property
    def blocks(self) -> int:
        """Blocks of the pool, that of unused rows included."""
        return int(self.tables.numel()) + 1

    def fill(self, plan: Any) -> None:
        """Put the newest `plan.width` tokens of each sequence into a plan's first rows."""
        size = self.block_size
        width = plan.width
        for row in range(plan.rows):
            span = slice(row * width, (row + 1) * width)
            if row >= len(self.texts):
                plan.seq_lens[row] = width
                plan.block_table[row] = 0
                plan.positions[span] = torch.arange(width)
                plan.slot_mapping[span] = torch.arange(width)
                continue
            text = self.texts[row]
            at = torch.arange(len(text) - width, len(text))
            plan.input_ids[span] = torch.tensor(text[-width:], dtype=torch.int32)
            plan.positions[span] = at
            plan.seq_lens[row] = len(text)
            plan.block_table[row] = self.tables[row]
            plan.slot_mapping[span] = self.tables[row].long()[at // size] * size + at % size


def drive(spec: Any, lengths: tuple[int, ...], *, graph: bool, vocab: int) -> list[Step]:
    """Prefill in chunks, decode one and two tokens wide, and rewrite a position.

    With `graph`, every plan is captured once at other contents than it is replayed with.
    """
    from rayspec.draft.vllm_model.model import VllmDraftModel

    model = VllmDraftModel(spec)
    try:
        generator = torch.Generator().manual_seed(7)
        texts = [torch.randint(3, vocab, (n,), generator=generator).tolist() for n in lengths]
        max_blocks = -(-(max(lengths) + 16) // model.block_size)
        sequences = Sequences(texts, model.block_size, max_blocks)
        model.allocate(sequences.blocks, max_blocks)
        _prefill(model, [text[:-1] for text in texts], sequences.tables, chunk=19)
        plans = {width: _runner(model.plan(len(texts) + 1, width), graph) for width in (1, 2)}
        steps: list[Step] = []

        def step(name: str, width: int) -> None:
            plan, run = plans[width]
            sequences.fill(plan)
            logits = run()[: len(texts)].float().cpu()
            steps.append(Step(name, logits, [list(text) for text in texts]))

        step("one after prefill", 1)
        for _ in range(3):
            for text in texts:
                text.append(int(torch.randint(3, vocab, (1,), generator=generator)))
            step("one more", 1)
        for text in texts:
            text[-1] = 5  # what was drafted there was refused
            text.append(9)
        step("two, the first rewritten", 2)
        for text in texts:
            text.append(11)
        step("one after two", 1)
        return steps
    finally:
        model.close()


def _prefill(model: Any, texts: list[list[int]], tables: torch.Tensor, chunk: int) -> None:
    """Prefill all texts together, `chunk` tokens of each at a time."""
    for start in range(0, max(map(len, texts)), chunk):
        parts = [
            (text[start : start + chunk], start, table)
            for text, table in zip(texts, tables, strict=True)
            if start < len(text)
        ]
        model.prefill(chunks_of(model.device, parts))


def _runner(plan: Any, graph: bool) -> tuple[Any, Callable[[], torch.Tensor]]:
    if not graph:
        return plan, plan.run
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(2):
            plan.run()
    torch.cuda.current_stream().wait_stream(side)
    torch.cuda.synchronize()
    captured = torch.cuda.CUDAGraph()
    with torch.cuda.graph(captured):
        out = plan.run()

    def replay() -> torch.Tensor:
        captured.replay()
        return out

    return plan, replay


@torch.no_grad()
def reference(
    path: Path, steps: list[Step], *, dtype: str = "float32", device: str = "cpu"
) -> list[torch.Tensor]:
    """Return transformers' logits for each step, [rows, vocab] float32, from whole texts.

    The weights are rounded to bfloat16 first where `dtype` says so, or "rounded" to compute with
    them in float32.
    """
    from transformers import AutoModelForCausalLM

    # Eager attention is the one that caps attention scores.
    model = AutoModelForCausalLM.from_pretrained(
        path, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    if dtype in ("rounded", "bfloat16"):
        model = model.to(torch.bfloat16)
    if dtype == "rounded":
        model = model.to(torch.float32)
    model = model.to(device)
    return [
        torch.stack(
            [model(torch.tensor([text], device=device)).logits[0, -1] for text in step.texts]
        )
        .float()
        .cpu()
        for step in steps
    ]


def lifecycle(path: str) -> dict[str, Any]:
    """Hold two models at once, close one, and report what their owner would see."""
    from rayspec.draft.vllm_model.model import VllmDraftModel
    from rayspec.draft.vllm_model.spec import VllmModelSpec
    from rayspec.errors import ConfigError

    first, second = (VllmDraftModel(VllmModelSpec(path=path, max_len=64)) for _ in range(2))
    errors = []
    first.allocate(2, 1)
    for wrong in (lambda: first.blocks_within(100), lambda: first.plan(257, 1)):
        try:
            wrong()
        except ConfigError as error:
            errors.append(str(error))
    first.close()
    first.close()
    second.allocate(2, 1)
    plan = second.plan(1, 1)
    logits = plan.run()
    seen = {
        "max_len": second.max_len,
        "vocab_size": second.vocab_size,
        "token_ids": second.token_ids,
        "blocks": second.blocks_within(10 * second.block_size * second.kv_bytes_per_token),
        "kv_bytes_per_token": second.kv_bytes_per_token,
        "finite": bool(logits.isfinite().all()),
        "errors": errors,
    }
    second.close()
    return seen


def cuda_refusals(path: str) -> list[str]:
    """Return what is said to settings that a GPU cannot have."""
    from rayspec.draft.vllm_model.model import VllmDraftModel
    from rayspec.draft.vllm_model.spec import VllmModelSpec
    from rayspec.errors import RayspecError

    said = []
    model = VllmDraftModel(VllmModelSpec(path=path, device="cuda"))
    try:
        model.allocate(2**40 // (model.block_size * model.kv_bytes_per_token), 8)
    except RayspecError as error:
        said.append(str(error))
    model.close()
    try:
        VllmDraftModel(VllmModelSpec(path=path, device="cuda", attention="FLASHINFER"))
    except RayspecError as error:
        said.append(str(error))
    return said
