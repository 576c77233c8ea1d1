#!/usr/bin/env bash
# The engine benchmark on two GPUs.
#
#   load_tests/gpu/bench_two_gpu.sh OUT [8b] [8b-batches] [32b] [tp2] [real] [8b-all]
#
# 8b, 32b      target on the first GPU, draft on the second, where plain runs too while the draft
#              idles: so a 32B model in bfloat16 fits on each of two GPUs of 80 GB; 1, 4 and 8
#              requests at a time
# 8b-batches   the same for 1 to 64 requests
# 8b-all       every batch, acceptance, temperature and K of every system: an hour
# tp2          target over both GPUs, draft beside rank 1
# real         real text and real acceptance, temperatures 0 and 1
#
# Every part (default: 8b 32b tp2) is one command of at most PART_S seconds (540), into a folder of
# OUT that holds what is known after every measurement.
set -uo pipefail

out=${1:?usage: bench_two_gpu.sh OUT [part...]}
shift
parts=("$@")
[ $# -eq 0 ] && parts=(8b 32b tp2)
python=${PYTHON:-python}
cd "$(dirname "$0")/../.." || exit 1
mkdir -p "$out"

bench() { # NAME OPTIONS...
  local name=$1
  shift
  "$python" load_tests/bench_engine.py --draft-device cuda:1 --out "$out/$name" --trace \
    --budget-s "${PART_S:-540}" "$@"
}

for part in "${parts[@]}"; do
  case $part in
    8b)
      bench 8b --draft-shape 1b shallow --acceptance 3 --batch 1 4 8 --k 3 5 --colocated-k 3 \
        --plain-devices 1 --systems plain rayspec colocated
      ;;
    8b-batches)
      bench 8b-batches --draft-shape 1b shallow --acceptance 2 3 4 --output-tokens 128 \
        --plain-devices 1 --systems plain rayspec colocated ngram
      ;;
    32b)
      bench 32b --target-shape 32b --draft-shape 1b shallow --acceptance 3 --batch 1 4 8 \
        --plain-devices 1 --systems plain rayspec colocated --output-tokens 192
      ;;
    tp2)
      bench tp2 --tp 2 --draft-shape 1b shallow --acceptance 3 --batch 1 4 8 \
        --systems plain rayspec colocated
      ;;
    real)
      bench real --acceptance real --draft-shape shallow smollm --batch 1 4 8 --temperature 0 1 \
        --sampling sparse --systems plain rayspec colocated ngram --k 3 5
      ;;
    8b-all)
      PART_S=${PART_S:-4200} bench 8b-all --draft-shape 1b shallow --temperature 0 1 --k 2 3 5
      ;;
    *)
      echo "no part $part: 8b, 8b-batches, 32b, tp2, real, 8b-all" >&2
      ;;
  esac
done
