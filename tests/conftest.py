"""Settings that every test runs under."""

from __future__ import annotations

import os

# Before anything imports Ray: its token authentication is on by default and asks for a token file
# in the user's home; usage reports have no place in a test run.
os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
# Nothing in a test may depend on the hub; models come from the cache that `make` fills.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
