"""Decoding speed of vLLM's engine: plain, with vLLM's own drafts, and with rayspec's remote draft.

    python load_tests/bench_engine.py --target-shape 8b --draft-shape 1b --draft-device cuda:1
    python load_tests/bench_engine.py --acceptance real --draft-shape smollm --temperature 0 1
    python load_tests/bench_engine.py --device cpu --tiny

Every system is an engine in a process of its own. Those that fit into the memory together are
alive together and take turns, round after round; figures are medians over the rounds. What does not
fit is measured alone, and the output says so. Results are in the folder --out from the first
measurement on: report.json (everything), table.txt, plot.png, one log per process.

What makes the comparison fair:
- One driver: AsyncLLM in the engine's usual place (its core in its own process), the same prompts
  in the same round, answers of the same length whatever they say, no detokenisation, no prefix
  cache, a KV cache that holds all requests.
- A cell is one batch started at once. Its figure is taken from the engine core's own clock over
  the steps in which all requests decode, without the first and the last of them: prefill is
  excluded for all, and so is the tail in which a batch shrinks. TPOT, with all that, is beside it.
- Full CUDA graphs of exactly the measured batches for everyone, asynchronous scheduling for all.
- Synthetic acceptance is vLLM's own and decides alike for all systems; it says nothing about how
  good drafts are. n-gram finds drafts only where text repeats, so it may accept fewer.
- The co-located draft model is measured in both of vLLM's runners: V1 (`colocated`) and V2
  (`colocated-v2`). Every system's best K of those given is reported.
- Tokens per second and GPU count the draft's GPU.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:  # run as a script
    sys.path.insert(0, str(ROOT))

from load_tests.bench.cli import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main(__doc__))
