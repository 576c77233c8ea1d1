#!/usr/bin/env bash
# CUDA MPS for this user: processes that share a GPU then run side by side instead of in turns.
#
#   eval "$(load_tests/gpu/mps.sh start)"   starts the daemon and points this shell at it
#   load_tests/gpu/mps.sh stop              ends it
#
# Changes no setting of the GPU. Exits with 3, and says why, where MPS is not to be had.
set -euo pipefail

place=${RAYSPEC_MPS_DIR:-/tmp/rayspec-mps-$(id -u)}
export CUDA_MPS_PIPE_DIRECTORY=$place/pipe CUDA_MPS_LOG_DIRECTORY=$place/log

control() { timeout 20 nvidia-cuda-mps-control; }

unavailable() {
  echo "MPS is not available: $1" >&2
  exit 3
}

case ${1:-} in
  start)
    command -v nvidia-cuda-mps-control >/dev/null || unavailable "no nvidia-cuda-mps-control"
    mkdir -p "$CUDA_MPS_PIPE_DIRECTORY" "$CUDA_MPS_LOG_DIRECTORY"
    nvidia-cuda-mps-control -d >&2 || unavailable "the daemon did not start, see $place/log"
    # Only a client shows whether the driver lets the daemon serve.
    if ! timeout 60 "${PYTHON:-python}" -c 'import torch; torch.zeros(1, device="cuda")' >&2; then
      echo quit | control >/dev/null 2>&1 || true
      unavailable "a client cannot use it, see $place/log"
    fi
    echo "export CUDA_MPS_PIPE_DIRECTORY=$CUDA_MPS_PIPE_DIRECTORY"
    echo "export CUDA_MPS_LOG_DIRECTORY=$CUDA_MPS_LOG_DIRECTORY"
    ;;
  stop)
    echo quit | control
    ;;
  *)
    echo "usage: mps.sh start|stop" >&2
    exit 2
    ;;
esac
