"""What the configuration accepts and refuses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel

from rayspec.config import AppConfig, derive, foreign, parse
from rayspec.config.explain import nested_sections
from rayspec.errors import ConfigError

PLAIN: dict[str, Any] = {"model": "smollm2", "plain": {}}
MODEL: dict[str, Any] = {"kind": "model", "model": "m"}
BOTH: dict[str, Any] = {**PLAIN, "speculative": {}, "draft": {"kind": "ngram"}}


def with_value(path: str, value: Any, base: dict[str, Any] = BOTH) -> dict[str, Any]:
    """Return a copy of `base` with the field at the dotted `path` set."""
    head, _, rest = path.partition(".")
    inner = with_value(rest, value, base.get(head, {})) if rest else value
    return {**base, head: inner}


def test_smallest_configurations() -> None:
    assert parse(PLAIN).speculative is None
    config = parse({"model": "m", "speculative": {}, "draft": {"kind": "ngram"}})
    assert config.plain is None
    assert parse(BOTH).plain is not None


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("modle", "x", "modle = 'x': unknown field; did you mean 'model'?"),
        ("plain.num_replica", 2, "did you mean 'num_replicas'?"),
        (
            "plain.zzz",
            2,
            "plain.zzz = 2: unknown field; known here: autoscaling, engine_args,",
        ),
        ("plain.autoscaling", {}, "plain.autoscaling.max_replicas = (missing): set it"),
        (
            "plain.autoscaling",
            {"min_replicas": 3, "max_replicas": 2},
            "plain.autoscaling.max_replicas = 2: must be at least min_replicas (3)",
        ),
        ("plain.max_surge_percent", 101, "must be at most 100"),
        ("speculative.autoscaling", {"max_replicas": 2}, "unknown field"),
        ("ingress.api_keys", [{"name": "a b", "sha256": "ab" * 32}], "ingress.api_keys.0.name"),
        (
            "ingress.api_keys",
            [{"name": "a", "sha256": "rsk-secret"}],
            "must be 64 hexadecimal digits, as `rayspec keys new NAME` prints them",
        ),
        (
            "ingress.api_keys",
            [{"name": name, "sha256": "ab" * 32} for name in ("a", "b")],
            "two have the same sha256; give each its own",
        ),
        (
            "ingress.cors",
            {"allow_origins": ["chat.example.com"]},
            "write an origin such as https://chat.example.com",
        ),
        ("ingress.open_paths", ["metrics"], "ingress.open_paths.0 = 'metrics': must begin with /"),
        ("plain.num_replicas", 0, "plain.num_replicas = 0: must be at least 1"),
        ("plain.num_replicas", "2", "plain.num_replicas = '2': must be a whole number"),
        ("plain.num_replicas", True, "plain.num_replicas = True: must be a whole number"),
        ("plain.num_replicas", 1.5, "plain.num_replicas = 1.5: must be a whole number"),
        ("plain", [], "plain = []: must be a mapping of settings"),
        ("plain.env", {"OMP_NUM_THREADS": 1}, "plain.env.OMP_NUM_THREADS = 1: must be a text"),
        ("plain.num_gpus", 0.5, ""),
        ("plain.num_gpus", 2, "plain.num_gpus = 2: leave it out or set it to tensor_parallel_size"),
        ("plain.engine_args", {"seed": 1}, "plain.engine_args.seed = 1: set 'seed' at the top"),
        ("plain.engine_args", {"gpu_memory_utilization": 0.8}, ""),
        (
            "plain.engine_args",
            {"gpu_memory_utilisation": 0.8},
            "plain.engine_args.gpu_memory_utilisation = 0.8: vLLM has no such argument; "
            "did you mean 'gpu_memory_utilization'?",
        ),
        ("frontend_args", {"tool_call_parser": "hermes"}, ""),
        ("frontend_args", {"port": 1}, "frontend_args.port = 1: vLLM's answers have no such"),
        ("dtype", "fp8", "dtype = 'fp8': must be one of 'auto', 'float32', 'bfloat16' or"),
        ("model", "", "model = '': must not be empty"),
        ("speculative.k_tiers", [0, 2], ""),
        ("speculative.k_tiers", [5], "speculative.k_tiers = [5]: 5 is not between 0 and"),
        ("speculative.k_tiers", 5, "speculative.k_tiers = 5: must be a list"),
        ("speculative.draft_deadline_ms", 0, "must be greater than 0"),
        ("draft", {"kind": "eagle"}, "draft.kind = 'eagle': set it to one of ngram, model, random"),
        ("draft", {}, "draft.kind = (missing): set it to one of ngram, model, random"),
        ("draft", {"kind": "model"}, "draft.model = (missing): set it"),
        ("draft.ngram_mim", 2, "did you mean 'ngram_min'?"),
        ("draft.ngram_min", 9, "draft.ngram_min = 9: must not exceed ngram_max (4)"),
        (
            "draft",
            {"kind": "model", "model": "m", "ngram_min": 2},
            "draft.ngram_min = 2: unknown field; known here: candidate, data_parallel_size",
        ),
        (
            "speculative.num_speculative_tokens",
            33,
            "num_speculative_tokens = 33: must be at most 32",
        ),
        ("draft", {**MODEL, "top_m": 0}, "draft.top_m = 0: must be one of 2, 4,"),
        ("draft", {**MODEL, "kv_gib": 0}, "draft.kv_gib = 0: must be greater than 0"),
        ("draft", {**MODEL, "fused": "yes"}, "draft.fused = 'yes': must be one of"),
        ("draft", {**MODEL, "quantization": "int4"}, "must be one of 'none' or 'fp8'"),
        (
            "draft",
            {**MODEL, "data_parallel_size": 65},
            "draft.data_parallel_size = 65: must not exceed speculative.max_num_seqs (64)",
        ),
        ("draft", {**MODEL, "engine": "transformers", "kv_gib": 1.0}, "needs a draft with engine"),
        ("draft", None, "draft = None: the speculative lane needs one"),
        ("speculative", None, "remove it or add a 'speculative' lane that uses it"),
        ("routing.acceptance_floor", 40, "must be at most 1"),
        ("routing.classes", {"A b": {}}, "routing.classes.A b = {}: use 1 to 32 characters"),
        ("routing.classes", {"code": {"floor": 1}}, "routing.classes.code.floor = 1: unknown"),
        ("routing.classes", {"code": {"k": 9}}, "routing.classes.code.k = 9: must not exceed"),
        (
            "routing.rules",
            [{"workload_class": "code", "prompt_pattern": "("}],
            "routing.rules.0.prompt_pattern = '(': write a valid regular expression",
        ),
        (
            "routing.rules",
            [{"workload_class": "code"}],
            "routing.rules.0.header = (missing): give at least one condition",
        ),
    ],
)
def test_wrong_values_are_one_line_with_field_value_and_remedy(
    path: str, value: Any, message: str
) -> None:
    if not message:
        parse(with_value(path, value))
        return
    with pytest.raises(ConfigError) as caught:
        parse(with_value(path, value))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("missing", ["model", "plain"])
def test_what_cannot_be_left_out_is_named(missing: str) -> None:
    args = {name: value for name, value in PLAIN.items() if name != missing}
    with pytest.raises(ConfigError, match=rf"^{missing} = \(missing\): "):
        parse(args)


def test_gpus_contradict_a_cpu_device() -> None:
    args = {**PLAIN, "device": "cpu", "plain": {"num_gpus": 1}}
    with pytest.raises(ConfigError, match=r"^plain.num_gpus = 1: leave it out"):
        parse(args)
    draft = {"kind": "model", "model": "m", "device": "cpu", "num_gpus": 1}
    with pytest.raises(ConfigError, match=r"^draft.num_gpus = 1: leave it out"):
        parse({**BOTH, "draft": draft})


@pytest.mark.parametrize(
    ("field", "value", "remedy"),
    [
        ("engine", "vllm", "needs a GPU: use 'transformers'"),
        ("quantization", "fp8", "needs a draft with engine 'vllm' on a GPU"),
        ("load_format", "dummy", "needs a draft with engine 'vllm' on a GPU"),
        ("fused", True, "needs a draft with engine 'vllm' on a GPU"),
        ("kv_gib", 2.0, "needs a draft with engine 'vllm' on a GPU"),
        ("sampling", "sparse", "needs a draft with engine 'vllm' on a GPU"),
        ("data_parallel_size", 2, "needs engine and drafts on GPUs"),
    ],
)
def test_what_a_draft_on_the_cpu_cannot_do(field: str, value: Any, remedy: str) -> None:
    draft = {**MODEL, field: value}
    for args in (
        {**BOTH, "draft": {**draft, "device": "cpu"}},
        {**BOTH, "draft": draft, "device": "cpu"},
    ):
        with pytest.raises(ConfigError) as caught:
            parse(args)
        assert str(caught.value).startswith(f"draft.{field} = ")
        assert remedy in str(caught.value)
    # Whether `auto` means a CPU is known only where the application is built.
    config = parse({**BOTH, "draft": draft})
    derive(config, has_gpu=True)
    with pytest.raises(ConfigError, match=rf"^draft\.{field} = "):
        derive(config, has_gpu=False)


@pytest.mark.parametrize(("field", "value"), [("sampling", "sparse"), ("data_parallel_size", 2)])
def test_what_needs_both_ends_on_gpus(field: str, value: Any) -> None:
    draft = {**MODEL, "device": "cuda", field: value}
    with pytest.raises(ConfigError, match=rf"^draft.{field} = .*: .*needs engine and"):
        parse({**BOTH, "device": "cpu", "draft": draft})


OWN: dict[str, Any] = {**PLAIN, "speculative": {"draft": {"method": "ngram"}}}


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("method", "ngrm", "method = 'ngrm': set it to one of ngram, suffix, draft_model, eagle"),
        ("ngram_mn", 1, "ngram_mn = 1: unknown field; did you mean 'ngram_min'?"),
        ("ngram_min", 9, "ngram_min = 9: must not exceed ngram_max (4)"),
        ("args", {"method": "x"}, "args.method = 'x': set 'method' of the draft"),
        ("args", {"prompt_lookup_min": 1}, "args.prompt_lookup_min = 1: set 'ngram_min'"),
        ("args", {"quantisation": "x"}, "no such setting; did you mean 'quantization'?"),
        (
            "args",
            {"rejection_sample_method": "synthetic"},
            "answers must have the model's own distribution",
        ),
    ],
)
def test_what_is_wrong_with_an_engines_own_draft(path: str, value: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(with_value(f"speculative.draft.{path}", value, OWN))
    assert str(caught.value).startswith(f"speculative.draft.{path}")
    assert message in str(caught.value)


@pytest.mark.parametrize("method", ["draft_model", "eagle", "eagle3"])
def test_a_method_with_a_model_names_it(method: str) -> None:
    args = with_value("speculative.draft", {"method": method}, OWN)
    with pytest.raises(ConfigError, match=r"^speculative.draft.model = \(missing\): set it"):
        parse(args)
    assert parse(with_value("speculative.draft.model", "d", args)).models() == ["smollm2", "d"]


@pytest.mark.parametrize(
    ("draft", "shares"),
    [
        ({"method": "draft_model", "model": "d"}, ["d"]),
        ({"method": "draft_model", "model": "d", "args": {"use_heterogeneous_vocab": True}}, []),
        ({"method": "eagle3", "model": "h"}, []),
        ({"method": "ngram"}, []),
    ],
)
def test_draft_models_share_the_targets_tokens(draft: dict[str, Any], shares: list[str]) -> None:
    assert parse(with_value("speculative.draft", draft, OWN)).draft_models() == shares
    assert parse({**BOTH, "draft": MODEL}).draft_models() == ["m"]
    tried = {**MODEL, "candidate": {"model": "n"}}
    assert parse({**BOTH, "draft": tried}).draft_models() == ["m", "n"]
    assert parse(BOTH).draft_models() == []


def test_an_engine_drafts_itself_or_has_a_draft_deployment() -> None:
    assert parse(OWN).models() == ["smollm2"]
    with pytest.raises(ConfigError, match=r"^draft = .*'draft' of the speculative lane; not both"):
        parse({**OWN, "draft": {"kind": "ngram"}})
    for name, value in (("draft_deadline_ms", 5), ("fused_verification", False)):
        with pytest.raises(ConfigError, match=rf"^speculative.{name} = .*engine drafts itself"):
            parse(with_value(f"speculative.{name}", value, OWN))


def test_suffix_decoding_needs_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    args = with_value("speculative.draft", {"method": "suffix", "min_token_prob": 0.2}, OWN)
    monkeypatch.setattr(foreign, "lacks", lambda module: module == "arctic_inference")
    with pytest.raises(ConfigError, match=r"^speculative.draft.method = 'suffix': .*pip install"):
        parse(args)
    monkeypatch.setattr(foreign, "lacks", lambda module: False)
    assert parse(args).speculative is not None


def test_yaml_on_and_off_mean_what_they_say() -> None:
    classes = {"code": {"speculation": True}, "chat": {"speculation": False}}
    config = parse({**BOTH, "routing": {"classes": classes}})
    assert config.routing.classes["code"].speculation == "on"
    assert config.routing.classes["chat"].speculation == "off"


def sections(section: type[BaseModel] = AppConfig) -> Iterator[type[BaseModel]]:
    """Return all parts of the configuration."""
    yield section
    for info in section.model_fields.values():
        for inner in nested_sections(info.annotation):
            yield from sections(inner)


def test_every_field_is_documented_and_its_unit_named() -> None:
    for section in sections():
        assert section.__doc__
        for name, info in section.model_fields.items():
            assert info.description, f"{section.__name__}.{name}"
            assert info.description.endswith("."), f"{section.__name__}.{name}"
