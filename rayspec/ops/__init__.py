"""Triton kernels of a step's exchange with the draft. In Triton's interpreter they run on a CPU."""
