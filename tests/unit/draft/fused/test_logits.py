from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.draft.fused.interpreted import CASES

ROOT = Path(__file__).resolve().parents[4]
# bfloat16 keeps 8 bits, and both sides round in places of their own.
TOLERANCE = {"bfloat16": 3e-2}


@pytest.fixture(scope="module")
def errors() -> dict[str, list[float]]:
    environment = os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": str(ROOT)}
    script = Path(__file__).with_name("interpreted.py")
    done = subprocess.run(
        [sys.executable, str(script)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, list[float]] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("name", CASES)
def test_logits_equal_transformers(errors: dict[str, list[float]], name: str) -> None:
    assert len(errors[name]) == 2
    assert max(errors[name]) < TOLERANCE.get(name, 1e-5)
