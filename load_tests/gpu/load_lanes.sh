#!/usr/bin/env bash
# The same staircase three times against a running application: routed, always speculative, always
# plain; then a report that compares them.
#
#   load_tests/gpu/load_lanes.sh OUT [HOST]
#
# STEPS (1,2,4,8,16,32,64), STEP_S (25) and WARM_UP_S (10) seconds, SLO_TTFT (1000) and SLO_TPOT (25)
# ms; PROMPT_SCALE and OUTPUT_SCALE (1) fit the lengths to the model; POLICIES (auto on off) are the
# runs to make; LOCUST_ARGS is passed on, such as `--processes 4 --temperature 1`. A run whose result
# is in OUT already is not repeated, so that what was cut off can go on. Exits with 1 if a request
# failed.
set -uo pipefail

out=${1:?usage: load_lanes.sh OUT [HOST]}
host=${2:-http://127.0.0.1:8000}
python=${PYTHON:-python}
mkdir -p "$out" && out=$(cd "$out" && pwd) || exit 1
cd "$(dirname "$0")/../.." || exit 1
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
read -ra extra <<<"${LOCUST_ARGS:-}"
declare -A label=([auto]=routed [on]="always speculative" [off]="always plain")

results=()
for policy in ${POLICIES:-auto on off}; do
  result=$out/$policy.json
  results+=("$result")
  [ -s "$result" ] && continue
  # Written to another place first: what is left of a run that was killed is no result.
  "$python" -m locust -f load_tests/locustfile.py --headless --only-summary --exit-code-on-error 0 \
    --host "$host" --shape staircase --steps "${STEPS:-1,2,4,8,16,32,64}" \
    --step-seconds "${STEP_S:-25}" --warm-up "${WARM_UP_S:-10}" --speculation "$policy" \
    --slo-ttft "${SLO_TTFT:-1000}" --slo-tpot "${SLO_TPOT:-25}" \
    --prompt-scale "${PROMPT_SCALE:-1}" --output-scale "${OUTPUT_SCALE:-1}" \
    --label "${label[$policy]}" --result "$result.part" "${extra[@]}" 2>&1 |
    tee "$out/$policy.log" || exit 1
  mv "$result.part" "$result" || exit 1
  # The page is there for what is done, should the next run be cut off.
  "$python" load_tests/report.py "${results[@]}" --out "$out/report.html" || true
done
"$python" load_tests/report.py "${results[@]}" --out "$out/report.html"
