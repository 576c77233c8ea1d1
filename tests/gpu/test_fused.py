"""The fused path on CUDA in bfloat16, at the sizes of drafts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, cast

import pytest
import torch
from transformers import LlamaConfig, Qwen2Config, Qwen3Config

from rayspec.draft.fused import FusedLlamaModel
from rayspec.draft.fused.plan import FusedPlan
from rayspec.draft.rounds.mixed import MixedDraftModel
from rayspec.draft.rounds.models import ModelChoice, load_draft_model
from tests.support.chunks import chunks_of
from tests.unit.draft.fused.sequences import Sequences, reference, tensors

pytestmark = pytest.mark.gpu

VOCAB = 49152
SHAPES = {
    "0.13b, 30 layers": LlamaConfig(
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        vocab_size=VOCAB,
        tie_word_embeddings=True,
    ),
    "1b, 16 layers": LlamaConfig(
        hidden_size=2048,
        intermediate_size=8192,
        num_hidden_layers=16,
        num_attention_heads=32,
        num_key_value_heads=8,
        vocab_size=VOCAB,
    ),
    "shallow, 4 layers": LlamaConfig(
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=4,
        num_attention_heads=16,
        num_key_value_heads=8,
        vocab_size=VOCAB,
        tie_word_embeddings=True,
    ),
    "qwen2, biases": Qwen2Config(
        hidden_size=896,
        intermediate_size=4864,
        num_hidden_layers=4,
        num_attention_heads=14,
        num_key_value_heads=2,
        vocab_size=VOCAB,
    ),
    "qwen3, wide heads": Qwen3Config(
        hidden_size=1024,
        intermediate_size=3072,
        num_hidden_layers=4,
        num_attention_heads=16,
        num_key_value_heads=8,
        head_dim=128,
        vocab_size=VOCAB,
    ),
}
LENGTHS = (700, 17, 129, 64, 65, 1030, 3, 250, 33, 400, 5, 90, 611, 128, 20)


def build(config: Any, rows: int, **settings: Any) -> tuple[Any, Sequences]:
    """Return the reference in bfloat16 and sequences of which all but the newest are cached."""
    twin = reference(config, torch.bfloat16, "cuda")
    model = FusedLlamaModel(config, tensors(twin).__getitem__, **settings)
    draw = torch.Generator().manual_seed(3)
    tokens = [torch.randint(0, VOCAB, (n,), generator=draw).tolist() for n in LENGTHS[:rows]]
    batch = Sequences(model, tokens, max_blocks=40)
    for row, sequence in enumerate(tokens):
        batch.prefill(row, 512, len(sequence) - 1)
    return twin, batch


def captured(plan: FusedPlan) -> Callable[[], torch.Tensor]:
    """Return the replay of a graph that was captured on the plan's present contents."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        plan.run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        logits = plan.run()

    def replay() -> torch.Tensor:
        graph.replay()
        return logits

    return replay


def advance(batch: Sequences, *, rewrite: bool) -> None:
    """Add a token to every sequence, after another newest one if `rewrite`."""
    for i, sequence in enumerate(batch.tokens):
        if rewrite:
            sequence[-1] = (sequence[-1] + 1) % VOCAB
        sequence.append(1000 + i)


def distances(batch: Sequences, twin: Any, logits: torch.Tensor) -> torch.Tensor:
    """Return how far each row is from float32, in units of transformers' own bfloat16."""
    theirs = batch.expected(twin)
    exact = batch.expected(twin.float())
    twin.to(torch.bfloat16)
    return (logits - exact).norm(dim=-1) / (theirs - exact).norm(dim=-1)


def assert_close(batch: Sequences, twin: Any, logits: torch.Tensor) -> None:
    """Fail unless every row is as near to float32 as transformers' bfloat16 is, within half."""
    found = distances(batch, twin, logits)
    assert (found <= 1.5).all(), [round(value, 2) for value in found.tolist()]


@pytest.mark.parametrize("pdl", [True, False], ids=["pdl", "plain"])
@pytest.mark.parametrize("rows", [1, 2, 15])
@pytest.mark.parametrize("name", SHAPES)
def test_graphs_follow_the_sequences(name: str, rows: int, pdl: bool) -> None:
    twin, batch = build(SHAPES[name], rows, pdl=pdl)
    padded = 1 << (rows - 1).bit_length()
    plans = {width: batch.model.plan(padded, width) for width in (1, 2)}
    for plan in plans.values():
        batch.fill(plan)  # An idle plan's warm-up would write into block 0, which may be in use.
    runs = {width: captured(plan) for width, plan in plans.items()}
    for width in (1, 2, 1, 1, 2):
        logits = batch.decode(plans[width], runs[width])
        assert_close(batch, twin, logits)
        advance(batch, rewrite=width == 1)
        if width == 1:
            # What was rewritten needs its KV, which a width of 2 brings.
            batch.decode(plans[2], runs[2])


def test_many_rows_take_several_tiles() -> None:
    twin, batch = build(SHAPES["shallow, 4 layers"], 15)
    batch.tokens = batch.tokens * 5  # 75 rows that share blocks, and write the same there
    batch.tables = torch.cat([batch.tables[:-1].repeat(5, 1), batch.tables[-1:]])
    for width in (1, 2):
        logits = batch.decode(batch.model.plan(80, width))
        assert_close(batch, twin, logits)


@pytest.mark.parametrize("quantization", ["none", "fp8"])
def test_a_trimmed_head_is_a_part_of_the_whole(quantization: Literal["none", "fp8"]) -> None:
    config = SHAPES["shallow, 4 layers"]
    ids = torch.randperm(VOCAB, generator=torch.Generator().manual_seed(4))[:5000]
    whole, trimmed = (
        build(config, 3, token_ids=kept, quantization=quantization)[1] for kept in (None, ids)
    )
    logits = whole.decode(whole.model.plan(4, 1))
    part = trimmed.decode(trimmed.model.plan(4, 1))
    assert trimmed.model.token_ids is not None
    assert part.shape == (3, 5000)
    # Sums over split inputs are atomic, so that two runs may differ in their last bits.
    torch.testing.assert_close(part, logits[:, ids.cuda()], rtol=1e-2, atol=2e-2)


@torch.no_grad()
def round_to_fp8(twin: Any) -> None:
    """Round every matrix but the embedding as fp8 weights are, with a scale per output."""
    for name, weight in twin.named_parameters():
        if weight.ndim == 2 and "embed" not in name:
            scale = weight.abs().amax(dim=1, keepdim=True) / 448
            weight.copy_((weight / scale).to(torch.float8_e4m3fn).float() * scale)


def test_fp8_is_the_model_of_rounded_weights_and_halves_the_bytes() -> None:
    # How near that is to the model itself depends on the model; a random one of 16 layers is far.
    twin, batch = build(SHAPES["1b, 16 layers"], 4, quantization="fp8")
    logits = batch.decode(batch.model.plan(4, 1))
    dense = sum(p.numel() * 2 for name, p in twin.named_parameters() if "embed" not in name)
    assert batch.model.weight_bytes < 0.52 * dense
    round_to_fp8(twin.float())
    exact = batch.expected(twin)
    theirs = batch.expected(twin.to(torch.bfloat16))
    found = (logits - exact).norm(dim=-1) / (theirs - exact).norm(dim=-1)
    assert (found <= 1.5).all(), found.tolist()


def test_fused_kernels_and_vllms_classes_share_a_cache(tmp_path: Path) -> None:
    twin = reference(SHAPES["shallow, 4 layers"], torch.bfloat16, "cuda")
    twin.save_pretrained(tmp_path)
    model: Any = load_draft_model(
        ModelChoice(path=str(tmp_path), device="cuda", max_len=1024, max_rows=8)
    )
    assert type(model) is MixedDraftModel
    draw = torch.Generator().manual_seed(5)
    tokens = [torch.randint(0, VOCAB, (n,), generator=draw).tolist() for n in (300, 17)]
    batch = Sequences(cast(Any, model), tokens, max_blocks=64)
    chosen = model.plan(2, 1), model.plan(2, 2)  # choosing writes into block 0
    for row, sequence in enumerate(tokens):
        batch.prefill(row, 128, len(sequence) - 1)
    plans: tuple[Any, ...] = tuple(make() for make in model.candidates(2, 1).values())
    fused, vllm = plans
    assert isinstance(fused, FusedPlan)
    assert not isinstance(vllm, FusedPlan)
    # Each reads what the other has written.
    every: list[Any] = [fused, vllm, fused, fused, vllm, *chosen]
    for plan in every:
        assert_close(batch, twin, batch.decode(plan))
        for sequence in batch.tokens:
            sequence.append(7)
    model.close()


def test_kernels_do_not_wait_for_the_host() -> None:
    _, batch = build(SHAPES["shallow, 4 layers"], 2)
    plan = batch.model.plan(2, 1)
    batch.decode(plan)
    chunks = chunks_of(batch.model.device, [([0] * 16, 32, batch.tables[0])])
    torch.cuda.set_sync_debug_mode("error")
    try:
        plan.run()
        batch.model.prefill(chunks)
    finally:
        torch.cuda.set_sync_debug_mode("default")
