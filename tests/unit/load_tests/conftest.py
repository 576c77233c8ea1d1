"""Locust replaces sockets and threads by gevent's when it is imported, here it must not."""

from __future__ import annotations

import os

os.environ.setdefault("LOCUST_SKIP_MONKEY_PATCH", "1")
