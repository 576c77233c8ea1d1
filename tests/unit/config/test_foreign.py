"""vLLM's arguments are found without importing it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from rayspec.config import foreign, methods
from rayspec.config.lanes import OWNED_ENGINE_ARGS


@pytest.mark.parametrize(
    "classes", [foreign.ENGINE_ARGS, foreign.FRONTEND_ARGS, foreign.SPECULATIVE_ARGS]
)
def test_the_installed_vllm_declares_every_class(classes: tuple[tuple[str, str], ...]) -> None:
    for file, class_ in classes:
        assert foreign._fields(file, class_), f"{class_} is not in {file} any more"


def test_what_rayspec_owns_exists() -> None:
    assert foreign.unknown(OWNED_ENGINE_ARGS, foreign.ENGINE_ARGS) is None


def test_what_follows_from_the_lane_exists() -> None:
    assert foreign.unknown(methods.OWNED_ARGS, foreign.SPECULATIVE_ARGS) is None


def test_without_vllm_everything_is_accepted() -> None:
    assert foreign.unknown(["anything"], (("no/such/file.py", "Args"),)) is None


def test_vllm_is_not_imported() -> None:
    script = (
        "import sys\n"
        "from rayspec.config import parse\n"
        "parse({'model': 'm', 'plain': {'engine_args': {'enforce_eager': True}}})\n"
        "sys.exit('vllm' in sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
