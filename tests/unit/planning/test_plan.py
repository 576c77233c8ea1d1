"""Layouts: what fits, what is ranked first, and what the roofline and scaling law stand on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from rayspec.cli.main import app
from rayspec.errors import ConfigError
from rayspec.planning.calibration import ClassProfile
from rayspec.planning.examples import open_calibration
from rayspec.planning.goodput import Slo
from rayspec.planning.gpus import PRESETS, find_gpu
from rayspec.planning.layouts import Layout, Machine, Needs, layouts, measured_layouts
from rayspec.planning.memory import GIB, ModelShape, Numbers
from rayspec.planning.model_sizes import find_model, of_size
from rayspec.planning.plan import rank
from rayspec.planning.roofline import step_s
from rayspec.planning.scaling_law import at_size, sizes
from rayspec.planning.traces import ClassMix, open_loop
from rayspec.routing.types import Lane

H200, H100 = PRESETS["h200"], PRESETS["h100"]
CLASSES = {"code": ClassProfile(acceptance=[0.8], prompt_tokens=300, output_tokens=100)}
LLAMA = {
    "8b": ModelShape(4096, 14336, 32, 32, 8, 128, 128256),
    "70b": ModelShape(8192, 28672, 80, 64, 8, 128, 128256),
    "1b": ModelShape(2048, 8192, 16, 32, 8, 64, 128256, tied=True),
    "shallow": ModelShape(1024, 4096, 4, 16, 8, 64, 128256, tied=True),
}


def fitting(target: str, count: int, dtype: str = "auto", gpu: str = "h200") -> list[Layout]:
    machine = Machine(PRESETS[gpu], count)
    return layouts(machine, find_model(target, dtype), [find_model("1b")], CLASSES, 1e9, Needs())


@pytest.mark.parametrize(
    ("shape", "batch", "tokens", "parallel", "measured_ms"),
    [
        ("8b", 1, 1, 1, 4.90),
        ("8b", 16, 1, 1, 5.20),
        ("8b", 64, 1, 1, 6.29),
        ("8b", 1, 6, 1, 5.04),
        ("8b", 16, 6, 1, 6.00),
        ("8b", 64, 6, 1, 12.6),
        ("70b", 1, 1, 2, 20.4),
        ("1b", 1, 1, 1, 1.208),
        ("shallow", 1, 1, 1, 0.265),
    ],
)
def test_the_roofline_meets_what_was_measured(
    shape: str, batch: int, tokens: int, parallel: int, measured_ms: float
) -> None:
    found = step_s(
        LLAMA[shape], Numbers(), H200, batch=batch, tokens=tokens, tensor_parallel=parallel
    )
    assert 1e3 * found == pytest.approx(measured_ms, rel=0.15)


def test_a_mixture_reads_more_experts_for_more_tokens() -> None:
    dense = ModelShape(2048, 128 * 768, 48, 32, 4, 128, 151936)
    mixture = ModelShape(2048, 6144, 48, 32, 4, 128, 151936, False, 128, 8, 768)
    alone, few, many = (step_s(mixture, Numbers(), H200, batch=b) for b in (1, 2, 256))
    assert alone < few < many
    # One token meets 8 of 128 experts, and so many tokens all of them.
    assert alone < 0.3 * step_s(dense, Numbers(), H200, batch=1)
    assert many > step_s(dense, Numbers(), H200, batch=1)


@pytest.mark.parametrize("size", ["135m", "0.5b", "3b", "8B", "70b"])
def test_a_size_becomes_a_shape_of_that_size(size: str) -> None:
    model = find_model(size)
    wanted = float(size[:-1]) * (1e6 if size[-1] == "m" else 1e9)
    assert model.assumed
    assert model.shape.parameters == pytest.approx(wanted, rel=0.06)


def test_a_draft_has_the_vocabulary_of_its_target() -> None:
    assert of_size(0.25e9, 128256).vocabulary == 128256


def test_a_model_is_read_from_its_folder(tmp_path: Path) -> None:
    config = {
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 128256,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    model = find_model(str(tmp_path))
    assert not model.assumed
    assert model.shape == LLAMA["1b"]


@pytest.mark.parametrize("ref", ["./nowhere", "huge", "0.0001b"])
def test_no_model(ref: str) -> None:
    with pytest.raises(ConfigError, match="model"):
        find_model(ref)


def test_layouts_spend_no_more_than_there_is_and_name_no_two_alike() -> None:
    found = fitting("8b", 4)
    assert max(layout.gpus for layout in found) == 4
    assert len({layout.name for layout in found}) == len(found)
    for layout in found:
        profiles = layout.calibration.lanes
        assert layout.gpus == sum(profiles[lane].gpus * n for lane, n in layout.replicas.items())
        assert all(not filled.missing for filled in layout.memory.values())
    kinds = {frozenset(layout.replicas) for layout in found}
    assert kinds == {
        frozenset({Lane.PLAIN}),
        frozenset({Lane.SPECULATIVE}),
        frozenset({Lane.PLAIN, Lane.SPECULATIVE}),
    }


def test_one_gpu_has_none_left_for_a_draft() -> None:
    assert {frozenset(layout.replicas) for layout in fitting("8b", 1)} == {frozenset({Lane.PLAIN})}


@pytest.mark.parametrize(
    ("target", "count", "remedy"),
    [
        ("70b", 1, "it fits with 4 GPUs or 2 GPUs with --dtype fp8"),
        ("70b", 2, "it fits with 4 GPUs or --dtype fp8"),
        ("405b", 4, "it fits with 8 GPUs with --dtype fp8"),
        ("2000b", 8, "take larger GPUs or a smaller model"),
    ],
)
def test_what_does_not_fit_is_refused_with_how_much_is_missing(
    target: str, count: int, remedy: str
) -> None:
    with pytest.raises(ConfigError, match=r"lacks \d+\.\d GiB") as error:
        fitting(target, count, gpu="h100")
    assert remedy in str(error.value)


@pytest.mark.parametrize(("target", "count", "dtype"), [("70b", 4, "auto"), ("70b", 2, "fp8")])
def test_a_remedy_helps(target: str, count: int, dtype: str) -> None:
    assert fitting(target, count, dtype, "h100")


def test_seats_are_what_the_cache_holds() -> None:
    (plain,) = (layout for layout in fitting("70b", 1, "fp8") if layout.gpus == 1)
    (filled,) = plain.memory.values()
    seats = plain.calibration.lanes[Lane.PLAIN].max_num_seqs
    assert seats == min(filled.kv_tokens // 1024, 256)
    assert filled.weights > 60 * GIB


def test_the_cheapest_that_keeps_the_limits_is_first() -> None:
    trace = open_loop(ClassMix({"code": 1}, CLASSES), 150, 1.0, 1.0, 0)
    easy = rank(fitting("8b", 3), trace, Slo(tpot_s=0.050))
    assert easy[0].layout.gpus == 1
    assert easy[0].good
    # A token in 4 ms is out of reach of one H200 without drafts.
    hard = rank(fitting("8b", 2), trace, Slo(tpot_s=0.004))
    assert hard[0].good
    assert hard[0].layout.gpus == 2
    assert not hard[-1].good
    goods = [one.good for one in hard]
    assert goods == sorted(goods, reverse=True)


def test_calibrated_engines_are_laid_out_as_they_were_measured() -> None:
    example = open_calibration("h200-8b")
    found = measured_layouts(example, 3)
    assert {tuple(layout.replicas.values()) for layout in found} == {(1,), (2,), (3,), (1, 1)}
    assert {layout.gpus for layout in found} == {1, 2, 3}
    free = example.lanes[Lane.PLAIN].model_copy(update={"gpus": 0})
    with pytest.raises(ConfigError, match="without GPUs"):
        measured_layouts(example.model_copy(update={"lanes": {Lane.PLAIN: free}}), 2)


def test_larger_drafts_are_accepted_more_often_by_the_law() -> None:
    rates = [at_size(0.6, 1e9, size) for size in (1e8, 5e8, 1e9, 8e9)]
    assert rates == sorted(rates)
    assert rates[2] == pytest.approx(0.6)
    assert 0.0 <= at_size(0.01, 1e9, 1e7) <= at_size(0.999, 1e9, 1e12) <= 1.0


def test_draft_sizes_are_compared_by_what_they_cost() -> None:
    model = find_model("70b", "fp8")
    found = sizes(model, H100, CLASSES, 1e9, tensor_parallel=2, batch=8, tiers=(1, 3, 5))
    assert [size.speedup for size in found] == sorted((s.speedup for s in found), reverse=True)
    largest = max(found, key=lambda size: size.parameters)
    assert largest.parameters <= model.shape.parameters / 4
    assert largest is not found[0]


def test_gpus() -> None:
    assert find_gpu("H200", 100).memory == 100 * 10**9
    with pytest.raises(ConfigError, match="h200"):
        find_gpu("h300")


def run(*args: str) -> Result:
    return CliRunner().invoke(app, ["plan", "--requests", "60", "--quiet", *args])


def test_the_command_prints_a_ranking_memory_and_a_draft_size() -> None:
    result = run("--target", "8b", "--gpus", "3", "--rate", "2", "--slo-tpot", "4")
    assert result.exit_code == 0, result.output
    for text in ("not measured but a roofline", "within the limits", "draft size by scaling law"):
        assert text in result.stdout
    assert "memory of a GPU" in result.stdout


def test_the_command_says_that_nothing_keeps_the_limits() -> None:
    result = run("--gpus", "2", "--slo-tpot", "0.1", "--calibration", "h200-8b")
    assert "No layout keeps the limits for 95% of the requests" in result.stdout


def test_the_command_as_json() -> None:
    found = json.loads(run("--gpus", "2", "--json").stdout)
    assert {"notes", "layouts", "draft_sizes"} == set(found)
    assert all(layout["gpus"] <= 2 for layout in found["layouts"])
