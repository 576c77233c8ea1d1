#!/usr/bin/env bash
# Joins this node to the head's, and stays until it ends: cluster/worker.sh [ENVIRONMENT FILE].
# Run it under something that starts it again, such as systemd: the draft then comes back by itself.
set -euo pipefail
environment=$(realpath "${1:-$(dirname "$0")/cluster.env}")
cd "$(dirname "$0")/.."
set -a
# shellcheck source=cluster.env
source "$environment"
set +a

exec ray start \
    --address "$HEAD_ADDRESS:$HEAD_PORT" \
    --node-ip-address "$WORKER_ADDRESS" \
    --resources "$WORKER_RESOURCES" \
    --disable-usage-stats \
    --block \
    ${RAY_START_OPTIONS:-}
