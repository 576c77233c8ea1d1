#!/usr/bin/env bash
# The engine benchmark on one GPU that target and draft share: a lower bound for two GPUs.
#
#   load_tests/gpu/bench_one_gpu.sh OUT [synthetic] [real] [32b]
#
# Measures the parts in the order given (default: synthetic, real) within BUDGET_S seconds (460),
# each into a folder of OUT that holds what is known after every measurement. MPS=0 leaves CUDA MPS
# away. `real` needs SmolLM2 in rayspec's model folder or a way to fetch it.
set -uo pipefail

out=${1:?usage: bench_one_gpu.sh OUT [part...]}
shift
parts=("$@")
[ $# -eq 0 ] && parts=(synthetic real)
python=${PYTHON:-python}
budget=${BUDGET_S:-460}
cd "$(dirname "$0")/../.." || exit 1
mkdir -p "$out"

if [ "${MPS:-1}" != 0 ]; then
  if settings=$(load_tests/gpu/mps.sh start); then
    eval "$settings"
    trap 'load_tests/gpu/mps.sh stop' EXIT
  else
    echo "going on without MPS: the processes take turns on the GPU" >&2
  fi
fi

bench() { # NAME SHARE-OF-THE-REST-IN-PERCENT OPTIONS...
  local name=$1 left=$((budget - SECONDS)) share=$2
  shift 2
  if [ "$left" -lt 60 ]; then
    echo "no time for $name" >&2
    return
  fi
  "$python" load_tests/bench_engine.py --draft-device cuda:0 --out "$out/$name" --trace \
    --budget-s $((left * share / 100)) --start-timeout-s 300 "$@"
}

for number in "${!parts[@]}"; do
  share=$((number + 1 < ${#parts[@]} ? 58 : 94)) # the rest is for stopping
  case ${parts[$number]} in
    synthetic)
      bench synthetic $share --target-shape 8b --draft-shape 1b shallow --acceptance 3 \
        --systems plain rayspec colocated --batch 1 8 --output-tokens 192
      ;;
    real)
      bench real $share --target-shape 8b --draft-shape shallow smollm --acceptance real \
        --systems plain rayspec colocated --batch 1 8 --output-tokens 192
      ;;
    32b)
      bench 32b $share --target-shape 32b --draft-shape 1b shallow --acceptance 3 \
        --systems plain rayspec --batch 1 8 --output-tokens 128 --rounds 3
      ;;
    *)
      echo "no part ${parts[$number]}: synthetic, real, 32b" >&2
      ;;
  esac
done
