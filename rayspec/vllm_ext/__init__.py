"""Everything that touches vLLM's internals: the worker, the two drafting hooks and the scheduler.

Importing this package imports no vLLM; each module imports what its own hook needs.
"""
