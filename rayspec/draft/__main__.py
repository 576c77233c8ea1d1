"""Runs a draft server as a plain process: `python -m rayspec.draft --kind ngram --port-file F`.

Prints nothing. Once targets can be admitted, the port file holds {"host", "port", "pid"}.
"""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import os
import signal
import threading
from pathlib import Path

from rayspec.draft.admin import AdminServer
from rayspec.draft.build import DRAFT_ENGINES, DRAFT_KINDS, build_drafter
from rayspec.draft.server import DraftServer
from rayspec.draft.spec import DraftServerSpec


def main(argv: list[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT."""
    options = _parser().parse_args(argv)
    logging.basicConfig(filename=options.log_file or os.devnull, level=logging.INFO)
    for module in options.load_module:
        importlib.import_module(module)
    drafter, vocab_size, tokenizer_hash = build_drafter(
        options.kind,
        model=options.model,
        vocab_size=options.vocab_size,
        slots=options.slots,
        max_len=options.max_len,
        threads=options.threads,
        device=options.device,
        engine=options.engine,
        quantization=options.quantization,
        vocab_trim=options.vocab_trim,
        load_format=options.load_format,
        fused=options.fused,
        kv_gib=options.kv_gib,
        sampling=options.sampling,
        top_m=options.top_m,
        targets=options.targets,
        k_tiers=options.k_tiers,
    )
    server = DraftServer(
        drafter,
        DraftServerSpec(
            host=options.host,
            vocab_size=vocab_size,
            tokenizer_hash=tokenizer_hash,
            k_max=options.k_max,
            max_slots=options.target_slots,
        ),
    )
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    server.start()
    admin = AdminServer(server, options.host)
    admin.start()
    _write_port_file(options.port_file, options.host, admin.port)
    stop.wait()
    admin.close()
    server.close()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="rayspec.draft", description="A draft server.")
    parser.add_argument("--kind", choices=DRAFT_KINDS, required=True)
    parser.add_argument("--port-file", type=Path, required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--model", help="model folder (kind model)")
    parser.add_argument("--vocab-size", type=int, help="vocabulary size (kind random)")
    parser.add_argument("--slots", type=int, default=16, help="sequences with a KV cache")
    parser.add_argument("--max-len", type=int, default=2048, help="tokens in a KV cache")
    parser.add_argument("--k-max", type=int, default=16, help="most drafts of a step")
    parser.add_argument(
        "--target-slots", type=int, default=1024, help="most sequences of one target"
    )
    parser.add_argument("--threads", type=int, help="torch threads (kind model)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda:N (kind model)")
    parser.add_argument("--log-file")
    on_cuda = parser.add_argument_group("kind model on a CUDA device")
    on_cuda.add_argument("--engine", choices=DRAFT_ENGINES, default="auto")
    on_cuda.add_argument("--quantization", choices=("none", "fp8"), default="none")
    on_cuda.add_argument("--vocab-trim", metavar="FILE", help="ids of tokens that may be drafted")
    on_cuda.add_argument("--load-format", default="auto", help="one of vLLM's")
    on_cuda.add_argument(
        "--load-module",
        action="append",
        default=[],
        metavar="MODULE",
        help="module to import first, for the load format that it registers",
    )
    on_cuda.add_argument(
        "--fused",
        action=argparse.BooleanOptionalAction,
        help="decode with rayspec's own kernels; by default where they prove faster",
    )
    on_cuda.add_argument("--targets", type=int, default=4, help="targets attached together")
    on_cuda.add_argument(
        "--k-tiers",
        type=int,
        nargs="+",
        metavar="K",
        help="draft lengths that targets ask for; by default any",
    )
    on_cuda.add_argument("--kv-gib", type=float, help="memory of the KV cache")
    on_cuda.add_argument("--sampling", choices=("greedy", "sparse"), default="greedy")
    on_cuda.add_argument("--top-m", type=int, default=32, help="tokens that drafts are drawn from")
    return parser


def _write_port_file(path: Path, host: str, port: int) -> None:
    # Renamed into place, so that a reader never sees half a file.
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps({"host": host, "port": port, "pid": os.getpid()}))
    partial.replace(path)


if __name__ == "__main__":
    raise SystemExit(main())
