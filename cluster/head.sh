#!/usr/bin/env bash
# Starts Ray's head on this node and deploys the application: cluster/head.sh [ENVIRONMENT FILE].
# `ray stop` ends it.
set -euo pipefail
environment=$(realpath "${1:-$(dirname "$0")/cluster.env}")
cd "$(dirname "$0")/.."
set -a
# shellcheck source=cluster.env
source "$environment"
set +a

ray start --head \
    --node-ip-address "$HEAD_ADDRESS" \
    --port "$HEAD_PORT" \
    --resources "$HEAD_RESOURCES" \
    --dashboard-host 127.0.0.1 \
    --disable-usage-stats \
    ${RAY_START_OPTIONS:-}
if [[ -n ${APP:-} ]]; then
    # Through the dashboard of this node; it takes a moment to be there.
    for _ in {1..60}; do
        if serve deploy "$APP"; then exit 0; fi
        sleep 1
    done
    echo "the application was not taken: see above" >&2
    exit 1
fi
