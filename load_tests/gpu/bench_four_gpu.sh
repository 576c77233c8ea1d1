#!/usr/bin/env bash
# The engine benchmark on four GPUs.
#
#   load_tests/gpu/bench_four_gpu.sh OUT [8b] [32b] [tp2] [real] [70b] [70b-real]
#
# 8b       target on GPU 0, draft on 1, where plain and n-gram run too while the draft idles: 1 to 64
#          requests, 2 to 4 tokens a step
# 32b      the same on GPUs 2 and 3, so that it can run beside 8b; without n-gram
# tp2      8B over GPUs 0 and 1, the draft beside rank 1
# real     real text on a grown 8B, GPUs 2 and 3, drafts with an acceptance of their own: DRAFT is the
#          folder of one (load_tests/distil.py)
# 70b      70B over GPUs 0 and 1, the draft on 2, plain over 2 and 3. Where the memory does not hold
#          plain beside the draft (80 GB), they are measured one after the other
# 70b-real the same with real text and DRAFT
#
# Every part (default: all) is one command of at most PART_S seconds (600), into a folder of OUT that
# holds what is known after every measurement. CORES_<part>, as in CORES_8b=0-31, pins a part to
# processors, for parts that run beside each other.
set -uo pipefail

out=${1:?usage: bench_four_gpu.sh OUT [part...]}
shift
parts=("$@")
[ $# -eq 0 ] && parts=(8b 32b tp2 real 70b 70b-real)
python=${PYTHON:-python}
cd "$(dirname "$0")/../.." || exit 1
mkdir -p "$out"

bench() { # NAME OPTIONS...
  local name=$1 cores=CORES_${1//-/_}
  shift
  ${!cores:+taskset -c "${!cores}"} "$python" load_tests/bench_engine.py --out "$out/$name" --trace \
    --budget-s "${PART_S:-600}" --rounds "${ROUNDS:-3}" "$@"
}

for part in "${parts[@]}"; do
  case $part in
    8b)
      bench 8b --target-devices 0 --draft-device cuda:1 --plain-devices 1 --ngram-devices 1 \
        --draft-shape 1b shallow --acceptance 2 3 4 --k 3 5 --colocated-k 3 --ngram-k 3 \
        --output-tokens 96 --systems plain rayspec colocated ngram
      ;;
    32b)
      bench 32b --target-shape 32b --target-devices 2 --draft-device cuda:3 --plain-devices 3 \
        --colocated-devices 2 --draft-shape 1b shallow --acceptance 2 3 4 --batch 1 4 8 16 64 \
        --k 3 5 --colocated-k 3 --output-tokens 96 --systems plain rayspec colocated
      ;;
    tp2)
      bench tp2 --tp 2 --target-devices 0 1 --draft-device cuda:1 --draft-shape 1b shallow \
        --acceptance 3 --batch 1 8 32 --k 3 --output-tokens 96 --systems plain rayspec colocated
      ;;
    real)
      bench real --acceptance real --target-devices 2 --draft-device cuda:3 --plain-devices 3 \
        --ngram-devices 3 --draft-shape "${DRAFT:-shallow}" --batch 1 4 8 32 --temperature 0 1 \
        --sampling sparse --k 3 5 --colocated-k 3 --ngram-k 3 \
        --output-tokens 96 --systems plain rayspec colocated ngram
      ;;
    70b)
      bench 70b --target-shape 70b --tp 2 --target-devices 0 1 --draft-device cuda:2 \
        --plain-devices 2 3 --draft-shape 1b smollm shallow --acceptance 2 3 4 \
        --batch 1 4 8 16 64 --k 3 5 --colocated-k 3 --output-tokens 64 \
        --systems plain rayspec colocated
      ;;
    70b-real)
      bench 70b-real --target-shape 70b --tp 2 --target-devices 0 1 --draft-device cuda:2 \
        --plain-devices 2 3 --acceptance real --draft-shape "${DRAFT:-shallow}" --batch 1 8 32 \
        --temperature 0 1 --sampling sparse --k 3 5 --output-tokens 64 --systems plain rayspec
      ;;
    *)
      echo "no part $part: 8b, 32b, tp2, real, 70b, 70b-real" >&2
      ;;
  esac
done
