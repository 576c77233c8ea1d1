"""Kernels run in Triton's interpreter, which has to be asked for before Triton is imported.

So the tests of this folder are collected where TRITON_INTERPRET=1 is set; elsewhere one test,
`test_interpreted`, runs them all in a process where it is.
"""

from __future__ import annotations

import os

collect_ignore_glob = [] if os.environ.get("TRITON_INTERPRET") == "1" else ["kernels/*"]
