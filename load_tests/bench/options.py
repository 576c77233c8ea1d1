"""The command line of the engine benchmark."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from load_tests.bench.models import known_shapes
from load_tests.bench.settings import SYSTEMS, Settings

__all__ = ["parse"]

REAL = "real"
BATCHES = (1, 2, 4, 8, 16, 32, 64)
CACHE = Path.home() / ".cache" / "rayspec" / "bench"
OWN_DEVICES = "GPUs of {} (default: the target's); the draft's, say, which idles meanwhile"
APART = ("plain", "colocated", "ngram", "colocated-v2")  # systems that can have GPUs of their own
SAMPLING = "sparse: drafts are sampled (co-located: probabilistic), for temperature 1"


def parse(description: str, argv: list[str] | None) -> Settings:
    """Read the command line; ends the process on what makes no sense."""
    parser = _parser(description)
    args = parser.parse_args(argv)
    real = args.acceptance == [REAL]
    try:
        acceptances = (0.0,) if real else tuple(map(float, args.acceptance))
    except ValueError:
        parser.error("--acceptance takes numbers, or 'real' alone")
    if args.tiny != (args.device == "cpu"):
        parser.error("--device cpu and --tiny go together")
    if args.tiny:
        real, acceptances = True, (0.0,)
        args.systems = args.systems or ["plain", "rayspec"]
    known = known_shapes(real)
    for shape in () if args.tiny else (args.target_shape, *args.draft_shape):
        if shape not in known and not (real and (Path(shape) / "config.json").exists()):
            parser.error(f"no shape {shape}; there are {', '.join(known)}")
    for system, devices in _own_devices(args).items():
        if len(devices) != args.tp:
            parser.error(f"--{system}-devices takes {args.tp}, as many as --tp")
    if not real and not 1 < max(acceptances) <= args.acceptance_k + 1:
        parser.error(f"{args.acceptance_k} drafts a step yield at most {args.acceptance_k + 1}")
    return _settings(args, acceptances)


def _settings(args: argparse.Namespace, acceptances: tuple[float, ...]) -> Settings:
    quick = args.quick or args.tiny
    cpu = args.device == "cpu"
    batches = (1, 2) if args.tiny else (1, 8) if quick else BATCHES
    targets = tuple(args.target_devices or range(args.tp))
    draft = int(args.draft_device.removeprefix("cuda:")) if not cpu else 0
    # Nothing is to be missed in a measurement for taking turns on a GPU, or for a cold start.
    deadline = 2000.0 if cpu else 250.0 if draft in targets else 20.0
    return Settings(
        systems=tuple(args.systems or SYSTEMS),
        batches=tuple(sorted(args.batch or batches)),
        acceptances=acceptances,
        acceptance_k=args.acceptance_k,
        ks=tuple(sorted(args.k)),
        colocated_ks=tuple(sorted(args.colocated_k or args.k)),
        ngram_ks=tuple(sorted(args.ngram_k or args.k)),
        temperatures=tuple(args.temperature),
        target_shape="tiny" if args.tiny else args.target_shape,
        draft_shapes=("tiny",) if args.tiny else tuple(args.draft_shape),
        tp=args.tp,
        device=args.device,
        target_devices=targets,
        own_devices=_own_devices(args),
        draft_device=draft,
        input_tokens=args.input_tokens or (32 if args.tiny else 256),
        output_tokens=args.output_tokens or (64 if args.tiny else 128 if quick else 256),
        rounds=args.rounds or (3 if quick else 5),
        trace=args.trace,
        budget_s=args.budget_s,
        start_timeout_s=args.start_timeout_s,
        draft_options=tuple(shlex.split(args.draft_options)),
        sampling=args.sampling,
        deadline_ms=args.deadline_ms or deadline,
        memory_gib=args.memory_gib,
        out=args.out.resolve(),
        cache=args.cache.resolve(),
    )


def _own_devices(args: argparse.Namespace) -> dict[str, tuple[int, ...]]:
    given = {system: getattr(args, f"{system.replace('-', '_')}_devices") for system in APART}
    return {system: tuple(devices) for system, devices in given.items() if devices}


def _parser(description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bench_engine",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--systems", nargs="+", choices=SYSTEMS, help="default: all; on a CPU plain and rayspec")
    add("--batch", nargs="+", type=int, help=f"requests at a time (default: {BATCHES})")
    add("--acceptance", nargs="+", default=["2", "3", "4"], help="tokens a step, or 'real'")
    add("--acceptance-k", type=int, default=5, help="drafts a step that --acceptance is said of")
    add("--k", nargs="+", type=int, default=[5], help="drafts a step; the best is reported")
    add("--colocated-k", nargs="+", type=int, help="of vLLM's co-located drafts (default: --k)")
    add("--ngram-k", nargs="+", type=int, help="of vLLM's n-gram drafts (default: --k)")
    add("--temperature", nargs="+", type=float, default=[0.0], help="(default: 0)")
    add("--target-shape", default="8b", help="8b, 32b, 70b")
    add("--draft-shape", nargs="+", default=["1b"], help="1b, smollm, shallow; real: or a folder")
    add("--tp", type=int, default=1, help="tensor parallelism of the target")
    add("--device", choices=("cuda", "cpu"), default="cuda")
    add("--target-devices", nargs="+", type=int, help="GPUs of the target (default: the first)")
    for system in APART:
        add(f"--{system}-devices", nargs="+", type=int, help=OWN_DEVICES.format(system))
    add("--draft-device", default="cuda:1", help="GPU of the draft; cuda:0 shares the target's")
    add("--input-tokens", type=int, help="prompt tokens; the most of them when real (256)")
    add("--output-tokens", type=int, help="tokens to generate per request (256)")
    add("--rounds", type=int, help="times that every cell is measured (5)")
    add("--trace", action="store_true", help="also say where a step's time goes")
    add("--sampling", choices=("greedy", "sparse"), default="greedy", help=SAMPLING)
    add("--draft-options", default="", help="more of rayspec.draft's, as in ='--quantization fp8'")
    add("--deadline-ms", type=float, help="rayspec's (20; 250 on a shared GPU, 2000 on a CPU)")
    add("--memory-gib", type=float, help="of each GPU, for all engines (default: 95 %%)")
    add("--budget-s", type=float, default=3600.0, help="stop cleanly after this time")
    add("--start-timeout-s", type=float, default=420.0, help="for one engine")
    add("--quick", action="store_true", help="batches 1 and 8, 128 tokens, 3 rounds")
    add("--tiny", action="store_true", help="a tiny random model, for --device cpu")
    add("--out", type=Path, default=Path("bench-engine"), help="folder of results and logs")
    add("--cache", type=Path, default=CACHE, help="folder of models and compiled code")
    return parser
