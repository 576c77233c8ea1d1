"""A Triton backend without a compiler: kernels run in Triton's interpreter, on CPU tensors.

Put the folder above on PYTHONPATH and set TRITON_INTERPRET=1: Triton finds the backend through the
entry point beside it. That is enough for vLLM's V2 model runner to run on a CPU.
"""
