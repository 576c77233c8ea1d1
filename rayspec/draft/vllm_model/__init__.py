"""A draft model run by vLLM's own model classes and kernels, without its engine."""
