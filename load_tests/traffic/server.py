"""What is asked of a server before the first request: is it there, which model, how long a text."""

from __future__ import annotations

import json
import urllib.request
from dataclasses import dataclass
from functools import cache

__all__ = ["NotThere", "Served", "ask_server"]

_TIMEOUT_S = 10.0


class NotThere(Exception):
    """Nothing answers, or not what is expected; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Served:
    """The model, and the most tokens of prompt and answer where the server tells."""

    model: str
    context: int | None


@cache
def ask_server(host: str, api_key: str) -> Served:
    """Return what `host` serves; a failure is not remembered."""
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    request = urllib.request.Request(f"{host.rstrip('/')}/v1/models", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as response:
            model = json.load(response)["data"][0]
            return Served(str(model["id"]), model.get("max_model_len"))
    except OSError as error:
        reason = getattr(error, "reason", error)
        raise NotThere(
            f"nothing serves at {host} ({reason}); start an application with `make serve`, or name "
            "another with --host"
        ) from None
    except (ValueError, KeyError, IndexError, TypeError):
        raise NotThere(f"what answers at {host}/v1/models is not an OpenAI server") from None
