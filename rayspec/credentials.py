"""The API key that rayspec's own commands send to an application that asks for one."""

from __future__ import annotations

import os
from collections.abc import Mapping

__all__ = ["API_KEY_VARIABLE", "auth_headers"]

API_KEY_VARIABLE = "RAYSPEC_API_KEY"


def auth_headers(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the headers that carry the key of the environment; none without one."""
    key = (os.environ if environ is None else environ).get(API_KEY_VARIABLE, "")
    return {"Authorization": f"Bearer {key}"} if key else {}
