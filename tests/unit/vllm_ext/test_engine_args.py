from __future__ import annotations

import ast
import importlib.util
from pathlib import Path
from typing import Any

import pytest

from rayspec.vllm_ext.compat import Compat
from rayspec.vllm_ext.config import ExtConfig
from rayspec.vllm_ext.engine_args import (
    own_draft_engine_args,
    plain_engine_args,
    speculative_engine_args,
)

BASE = {"model": "m", "max_num_seqs": 16, "additional_config": {"other": 1}}


BROKEN = Compat("0.31.0", ("no hooks",))


def test_a_plain_engine_on_cuda_is_untouched() -> None:
    assert plain_engine_args(BASE, device="cuda") == BASE


def test_a_plain_engine_on_cpu_gets_the_worker_that_survives_seeds() -> None:
    args = plain_engine_args(BASE, device="cpu")

    assert args == BASE | {"worker_cls": "rayspec.vllm_ext.worker_cpu.PlainWorker"}
    assert plain_engine_args(BASE, device="cpu", compatibility=BROKEN) == BASE


def test_cpu_uses_the_proposer_class() -> None:
    args = speculative_engine_args(BASE, device="cpu", num_speculative_tokens=4)
    assert args["speculative_config"] == {
        "method": "custom_class",
        "model": "rayspec.vllm_ext.proposer.RemoteProposer",
        "num_speculative_tokens": 4,
    }
    assert args["worker_cls"] == "rayspec.vllm_ext.worker_cpu.Worker"
    assert args["per_request_spec_decode_metrics"] == "summary"
    assert args["model"] == "m"
    assert args["additional_config"]["other"] == 1
    assert ExtConfig.from_additional_config(args["additional_config"]).enabled


def test_cuda_declares_the_widths_to_capture() -> None:
    args = speculative_engine_args(BASE, device="cuda", num_speculative_tokens=5, k_tiers=(2, 3))
    config = args["speculative_config"]
    assert config["method"] == "ngram_gpu"
    assert config["num_speculative_tokens_per_batch_size"] == [
        (1, 1, 0),
        (2, 2, 2),
        (3, 3, 3),
        (4, 16, 5),
    ]
    assert ExtConfig.from_additional_config(args["additional_config"]).k_tiers == (0, 2, 3, 5)


@pytest.mark.parametrize("tiers", [(5,), (-1,)])
def test_widths_beyond_k_are_refused(tiers: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"k_tiers must lie within 0\.\.4"):
        speculative_engine_args(BASE, device="cpu", num_speculative_tokens=4, k_tiers=tiers)


@pytest.mark.parametrize(
    ("wanted", "given"),
    [
        ([0.8, 0.5], {"synthetic_acceptance_rates": [0.8, 0.5]}),
        (2.5, {"synthetic_acceptance_length": 2.5}),
    ],
)
def test_synthetic_acceptance(wanted: Any, given: dict[str, Any]) -> None:
    args = speculative_engine_args(
        BASE, device="cuda", num_speculative_tokens=2, synthetic_acceptance=wanted
    )
    config = args["speculative_config"]
    assert config["rejection_sample_method"] == "synthetic"
    assert given.items() <= config.items()
    with pytest.raises(ValueError, match="V2 model runner"):
        speculative_engine_args(
            BASE, device="cpu", num_speculative_tokens=2, synthetic_acceptance=wanted
        )


def test_a_vllm_that_does_not_fit_runs_without_speculation() -> None:
    args = speculative_engine_args(
        BASE,
        device="cpu",
        num_speculative_tokens=4,
        compatibility=Compat("9.9", ("no hook",)),
    )
    assert "speculative_config" not in args
    assert "scheduler_cls" not in args
    ext = ExtConfig.from_additional_config(args["additional_config"])
    assert not ext.enabled
    assert ext.disabled_reason == "vLLM 9.9: no hook"
    assert args["worker_cls"] == "rayspec.vllm_ext.worker_cpu.Worker"


def test_without_a_worker_to_derive_from_vllm_is_stock() -> None:
    args = speculative_engine_args(
        BASE,
        device="cpu",
        num_speculative_tokens=4,
        compatibility=Compat("9.9", ("no worker",), worker=False),
    )
    assert args.keys() == BASE.keys()


def test_disabled_by_configuration() -> None:
    args = speculative_engine_args(
        BASE, device="cuda", num_speculative_tokens=4, ext=ExtConfig(enabled=False)
    )
    assert "speculative_config" not in args
    ext = ExtConfig.from_additional_config(args["additional_config"])
    assert ext.disabled_reason == "disabled by configuration"


def own_draft(device: Any, method: str, **others: Any) -> dict[str, Any]:
    return own_draft_engine_args(
        BASE,
        device=device,
        num_speculative_tokens=4,
        k_tiers=(0, 2, 4),
        method=method,
        settings={"prompt_lookup_max": 3},
        **others,
    )


def test_an_engine_that_drafts_itself_on_cpu() -> None:
    args = own_draft("cpu", "ngram")
    assert args["speculative_config"] == {
        "method": "ngram",
        "num_speculative_tokens": 4,
        "prompt_lookup_max": 3,
    }
    assert args["worker_cls"] == "rayspec.vllm_ext.worker_cpu.PlainWorker"
    assert args["per_request_spec_decode_metrics"] == "summary"
    assert args["additional_config"]["other"] == 1
    # Every width may be had: there are no graphs.
    assert ExtConfig.from_additional_config(args["additional_config"]).k_tiers == ()


@pytest.mark.parametrize(
    ("method", "given", "tiers"),
    [("ngram", "ngram_gpu", (0, 2, 4)), ("eagle3", "eagle3", (0, 2, 4)), ("suffix", "suffix", ())],
)
def test_an_engine_that_drafts_itself_on_cuda(
    method: str, given: str, tiers: tuple[int, ...]
) -> None:
    args = own_draft("cuda", method)
    config = args["speculative_config"]
    assert config["method"] == given
    declared = config.get("num_speculative_tokens_per_batch_size", [])
    assert [k for _, _, k in declared] == list(tiers)
    assert ExtConfig.from_additional_config(args["additional_config"]).k_tiers == tiers
    assert "worker_cls" not in args


def test_on_a_vllm_that_does_not_fit_the_engine_drafts_as_it_does_alone() -> None:
    args = own_draft("cpu", "ngram", compatibility=BROKEN)
    assert args["speculative_config"]["method"] == "ngram"
    assert args.keys() - BASE.keys() == {"speculative_config", "per_request_spec_decode_metrics"}


def test_the_scheduler_of_own_drafts_exists() -> None:
    module, _, name = own_draft("cpu", "ngram")["scheduler_cls"].rpartition(".")
    assert name in definitions(module)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_every_named_class_exists(device: str) -> None:
    args = speculative_engine_args(BASE, device=device, num_speculative_tokens=4)  # type: ignore[arg-type]
    names = [args["worker_cls"], args["scheduler_cls"]]
    if device == "cpu":
        names.append(args["speculative_config"]["model"])
    for name in names:
        module, _, attribute = name.rpartition(".")
        assert attribute in definitions(module)


def test_the_gpu_worker_never_meets_the_cpu_worker() -> None:
    # vLLM's CPU worker patches torch.cuda when it is imported.
    seen, todo = set(), ["rayspec.vllm_ext.worker_gpu"]
    while todo:
        module = todo.pop()
        seen.add(module)
        assert "cpu_worker" not in module
        if module.startswith("rayspec."):
            todo += [name for name in imports(module) if name not in seen]
    assert "vllm.v1.worker.gpu_worker" in seen


def tree(module: str) -> ast.Module:
    spec = importlib.util.find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    return ast.parse(Path(spec.origin).read_text(encoding="utf-8"))


def definitions(module: str) -> set[str]:
    return {n.name for n in tree(module).body if isinstance(n, ast.ClassDef | ast.FunctionDef)}


def imports(module: str) -> list[str]:
    nodes = list(ast.walk(tree(module)))
    plain = [a.name for n in nodes if isinstance(n, ast.Import) for a in n.names]
    return plain + [n.module for n in nodes if isinstance(n, ast.ImportFrom) and n.module]
