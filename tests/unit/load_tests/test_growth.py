"""A grown model computes the small one's function."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from load_tests.growth import SHAPES, Dims, GrownModel, Layout, Shape

SMALL = Dims(hidden=24, layers=3, heads=6, kv_heads=2, head_dim=8, intermediate=40)
SMOLLM2 = Dims(hidden=576, layers=30, heads=9, kv_heads=3, head_dim=64, intermediate=1536)
VOCAB = 61


def build(folder: Path, dims: Dims, *, dtype: torch.dtype = torch.float32) -> Path:
    torch.manual_seed(3)
    config = LlamaConfig(
        hidden_size=dims.hidden,
        intermediate_size=dims.intermediate,
        num_hidden_layers=dims.layers,
        num_attention_heads=dims.heads,
        num_key_value_heads=dims.kv_heads,
        head_dim=dims.head_dim,
        vocab_size=VOCAB,
        tie_word_embeddings=dims.tied,
        rms_norm_eps=1e-2,  # large enough that a wrong epsilon shows
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        initializer_range=0.3,
    )
    model = LlamaForCausalLM(config)
    for name, weight in model.named_parameters():
        if "norm" in name:
            torch.nn.init.normal_(weight, 1.0, 0.3)
    model.to(dtype).save_pretrained(folder)
    return folder


@torch.inference_mode()
def logits(folder: Path, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    ids = torch.randint(VOCAB, (2, 40), generator=torch.Generator().manual_seed(5))
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
    found: torch.Tensor = model(ids).logits.float()
    return found


WIDER = replace(SMALL, hidden=66)  # transformers wants a multiple of the heads
SHAPES_TO_TRY = {
    "same": SMALL,
    "a little wider": replace(SMALL, hidden=42),
    "wider": WIDER,
    "much wider": replace(SMALL, hidden=204),
    "deeper": replace(WIDER, layers=5),
    "larger heads": replace(WIDER, head_dim=16),
    "much larger heads": replace(WIDER, head_dim=32),
    "larger groups": replace(WIDER, hidden=80, heads=20, kv_heads=4),
    "smaller groups": replace(WIDER, hidden=72, heads=8, kv_heads=4),
    "no groups": replace(WIDER, heads=6, kv_heads=6),
    "more neurons": replace(WIDER, intermediate=100),
    "all": Dims(hidden=128, layers=4, heads=16, kv_heads=4, head_dim=16, intermediate=96),
}


@pytest.mark.parametrize(
    ("name", "tied"),
    [
        *((name, (False, False)) for name in SHAPES_TO_TRY),
        ("all", (True, True)),
        ("all", (True, False)),
    ],
    ids=str,
)
def test_equal_logits(tmp_path: Path, name: str, tied: tuple[bool, bool]) -> None:
    small = build(tmp_path / "small", replace(SMALL, tied=tied[0]))
    big = replace(SHAPES_TO_TRY[name], tied=tied[1])
    grown = GrownModel.of(small, Shape(big, "test"))
    assert grown.layout.exact
    expected = logits(small)
    found = logits(grown.write(tmp_path / "big", torch.float32))
    assert expected.std() > 1
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_layers_side_by_side(tmp_path: Path) -> None:
    """The pair computes what a model computes whose layers read the same input."""
    source = build(tmp_path / "small", SMALL)
    dims = Dims(hidden=112, layers=2, heads=16, kv_heads=4, head_dim=16, intermediate=90)
    grown = GrownModel.of(source, Shape(dims, "test", ((0,), (1, 2))))
    assert grown.layout.plan == ((0,), (1, 2))
    assert not grown.layout.exact

    small = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32).eval().model
    first, second, third = small.layers
    attention, mlp = second.self_attn.forward, second.mlp.forward
    # Layer 1 becomes the pair, layer 2 is taken out.
    raw: dict[str, torch.Tensor] = {}

    def both(part: str) -> None:
        norm_a, norm_b = getattr(second, part), getattr(third, part)
        own = norm_a.forward

        def forward(hidden: torch.Tensor) -> torch.Tensor:
            raw["other"] = norm_b(hidden)
            normed: torch.Tensor = own(hidden)
            return normed

        norm_a.forward = forward

    both("input_layernorm")
    both("post_attention_layernorm")

    def attend(hidden_states: torch.Tensor, **kwargs: object) -> tuple[torch.Tensor, None]:
        a = attention(hidden_states=hidden_states, **kwargs)[0]
        b = third.self_attn(hidden_states=raw["other"], **kwargs)[0]
        return a + b, None

    second.self_attn.forward = attend
    second.mlp.forward = lambda hidden: mlp(hidden) + third.mlp(raw["other"])
    small.layers = torch.nn.ModuleList([first, second])
    head = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32).lm_head
    ids = torch.randint(VOCAB, (2, 40), generator=torch.Generator().manual_seed(5))
    with torch.inference_mode():
        expected = head(small(ids, use_cache=False).last_hidden_state)

    found = logits(grown.write(tmp_path / "big", torch.float32))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_bfloat16_keeps_the_function(tmp_path: Path) -> None:
    """As far from the small model as that is from itself in float32."""
    small = build(tmp_path / "small", SMALL, dtype=torch.bfloat16)
    grown = GrownModel.of(small, Shape(SHAPES_TO_TRY["all"], "test"))
    found = logits(grown.write(tmp_path / "big", torch.bfloat16), torch.bfloat16)
    exact, expected = logits(small), logits(small, torch.bfloat16)
    assert (found - exact).pow(2).mean() <= 2 * (expected - exact).pow(2).mean()


def test_noise_has_no_effect_and_no_zeros(tmp_path: Path) -> None:
    grown = GrownModel.of(build(tmp_path, SMALL), Shape(SHAPES_TO_TRY["all"], "test"))
    weights = dict(grown.weights(dtype=torch.bfloat16, device="cpu"))
    assert all((tensor != 0).float().mean() > 0.99 for tensor in weights.values())
    again = dict(grown.weights(dtype=torch.bfloat16, device="cpu"))
    assert all(torch.equal(weights[name], again[name]) for name in weights)


@pytest.mark.parametrize("name", SHAPES)
def test_smollm2_fits_every_shape(name: str) -> None:
    shape = SHAPES[name]
    layout = Layout(replace(SMOLLM2, tied=True), shape.dims, shape.plan(SMOLLM2.layers))
    assert layout.exact == (not shape.computes)
    for slot in range(max(map(len, layout.plan))):
        queries = layout.query_heads(slot)
        assert len(set(queries)) == SMOLLM2.heads
        for small, big in enumerate(queries):
            holds = layout.kv_heads(slot)[big // layout.big.group]
            assert holds == small // layout.small.group


def test_sizes() -> None:
    assert SHAPES["8b"].dims.parameters(128256) == 8_030_261_248
    assert SHAPES["70b"].dims.parameters(128256) == 70_553_706_496
    assert SHAPES["8b"].dims.step_bytes(128256) == 2 * (8_030_261_248 - 128256 * 4096)


@pytest.mark.parametrize(
    ("big", "problem"),
    [
        (replace(SMALL, hidden=20), "hidden size"),
        (replace(SMALL, layers=2), "3 layers do not fit into 2"),
        (replace(SMALL, heads=3, kv_heads=1), "KV heads"),
        (replace(SMALL, head_dim=12), "head size"),
        (replace(SMALL, intermediate=39), "intermediate size"),
        (replace(SMALL, tied=True), "untied head"),
    ],
)
def test_what_does_not_fit(tmp_path: Path, big: Dims, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        GrownModel.of(build(tmp_path, SMALL), Shape(big, "test"))


def test_folder(tmp_path: Path) -> None:
    small = build(tmp_path / "small", SMALL)
    (small / "tokenizer.json").write_text("{}")
    grown = GrownModel.of(small, Shape(SHAPES_TO_TRY["all"], "test"))
    folder = grown.write_config(tmp_path / "big")
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.json",
        "generation_config.json",
        "growth.json",
        "tokenizer.json",
    ]
    assert GrownModel.read(folder).layout == grown.layout
    moved = small.rename(tmp_path / "moved")
    assert GrownModel.read(folder, moved).source == moved


def test_scaled_frequencies_stay_in_place(tmp_path: Path) -> None:
    small = build(tmp_path, SMALL)
    config = json.loads((small / "config.json").read_text())
    config["rope_parameters"] = {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}
    (small / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="rotary"):
        GrownModel.of(small, Shape(replace(WIDER, head_dim=16), "test"))
