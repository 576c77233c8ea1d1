"""TPOT with our verification kernels and with vLLM's verification, in one engine in turns.

    python load_tests/bench_verified_tpot.py --target-shape 8b --draft-shape smollm --batch 1 16 64
    python load_tests/bench_verified_tpot.py --device cpu --tiny

The options are bench_engine.py's, with real texts and drafts (synthetic acceptance goes vLLM's way
whatever is asked for), temperature 1 and sparsely sampled drafts as defaults, and --top-p. Round by
round the same prompts are answered with the one and the other, the first to go changing; nothing
but the verification differs, and the engine is the same process. Seeds are the engine's, so texts
and with them the tokens of a step differ: TPOT is beside the time of a step for that reason.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:  # run as a script
    sys.path.insert(0, str(ROOT))

from load_tests.bench import systems  # noqa: E402
from load_tests.bench.controller import WARM_TOKENS, draft_options  # noqa: E402
from load_tests.bench.models import Models, prepare  # noqa: E402
from load_tests.bench.options import parse  # noqa: E402
from load_tests.bench.process import DraftProcess, EngineProcess, visible_devices  # noqa: E402
from load_tests.bench.settings import Settings  # noqa: E402

WAYS = {"ours": True, "vllm": False}
DEFAULTS = ["--acceptance", "real", "--temperature", "1", "--sampling", "sparse"]
FIGURES = ("tpot_ms", "step_ms", "tokens_per_step")


def main() -> int:
    own = argparse.ArgumentParser(
        description=__doc__,
        epilog="All other options: python load_tests/bench_engine.py --help",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    own.add_argument("--top-p", type=float, default=0.9)
    mine, rest = own.parse_known_args()
    defaults = ["--temperature", "1"] if "--tiny" in rest else DEFAULTS
    settings = parse(__doc__ or "", [*defaults, "--systems", "rayspec", *rest])
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(message)s")
    settings.out.mkdir(parents=True, exist_ok=True)
    models = prepare(settings)
    draft, engine = start(settings, models)
    report: dict[str, Any] = {"argv": sys.argv[1:], "top_p": mine.top_p, "samples": []}
    try:
        report["engine"] = engine.ready(settings.start_timeout_s)
        engine.call("attach", draft.address(settings.start_timeout_s))
        engine.call("set_k", max(settings.ks))
        report["ours_installed"] = engine.call("verify_ours", True)
        measure(settings, models, engine, report, mine.top_p)
    finally:
        draft.close()
        engine.close()
        (settings.out / "tpot.json").write_text(json.dumps(report, indent=1))
    table(report)
    return 0


def start(settings: Settings, models: Models) -> tuple[DraftProcess, EngineProcess]:
    """Start the draft and an engine with our verification, each on GPUs of its own."""
    (variant,) = settings.variants()
    (name,) = settings.draft_shapes
    environment = systems.environment(settings, variant)
    draft_environment = systems.link_environment(settings, "draft")
    if settings.device == "cuda":
        environment["CUDA_VISIBLE_DEVICES"] = visible_devices(settings.target_devices)
        draft_environment["CUDA_VISIBLE_DEVICES"] = visible_devices([settings.draft_device])
        draft_environment["VLLM_CACHE_ROOT"] = str(settings.cache / "draft")
    options = draft_options(settings, models.drafts[name], models.prompts.vocab_size)
    draft = DraftProcess(options, draft_environment, settings.out / "draft.log")
    arguments = systems.engine_args(settings, models, variant)
    return draft, EngineProcess(arguments, environment, settings.out / "engine.log")


def measure(
    settings: Settings, models: Models, engine: EngineProcess, report: dict[str, Any], top_p: float
) -> None:
    """Take turns; every sample is in the report at once."""
    (temperature,) = settings.temperatures
    for number in range(settings.rounds):
        for batch in settings.batches:
            prompts = models.prompts.take(batch, seed=number)
            order = list(WAYS) if number % 2 == 0 else list(reversed(WAYS))
            for way in order:
                engine.call("verify_ours", WAYS[way])
                if number == 0:
                    engine.call("generate", prompts, WARM_TOKENS, temperature, top_p)
                arguments = prompts, settings.output_tokens, temperature, top_p
                sample = engine.call("measure", *arguments)
                report["samples"].append({"way": way, "batch": batch, "round": number, **sample})


def table(report: dict[str, Any]) -> None:
    """Print the medians."""
    print(f"ours installed: {report['ours_installed']}, top-p {report['top_p']}")
    print("batch  way   TPOT ms  step ms  tokens a step")
    for batch in sorted({sample["batch"] for sample in report["samples"]}):
        for way in WAYS:
            mine = [s for s in report["samples"] if (s["way"], s["batch"]) == (way, batch)]
            tpot, step, tokens = (statistics.median([s[key] for s in mine]) for key in FIGURES)
            print(f"{batch:5}  {way:4} {tpot:8.3f} {step:8.3f} {tokens:10.2f}")


if __name__ == "__main__":
    sys.exit(main())
