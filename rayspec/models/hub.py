"""The Hugging Face hub: is it there, and snapshots of its models."""

from __future__ import annotations

import os
import threading
from functools import cache
from pathlib import Path
from typing import Any

from rayspec.errors import ModelError

PROBE_TIMEOUT_S = 2.5
# What an engine never reads; some repositories hold several gigabytes of it.
_IGNORED = [
    *("*.bin", "*.pt", "*.pth", "*.h5", "*.ot", "*.msgpack", "*.onnx", "*.gguf", "*.tflite"),
    *("onnx/*", "original/*", "runs/*"),
]


@cache
def reachable() -> bool:
    """Tell within `PROBE_TIMEOUT_S` whether the hub answers at all; asked once per process."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    answered = threading.Event()

    def probe() -> None:
        import httpx

        try:
            httpx.head(constants.ENDPOINT, timeout=PROBE_TIMEOUT_S)
        except (httpx.HTTPError, OSError):
            return
        answered.set()

    # In a thread of its own, because name resolution has no timeout.
    thread = threading.Thread(target=probe, name="hub-probe", daemon=True)
    thread.start()
    thread.join(PROBE_TIMEOUT_S)
    return answered.is_set()


def snapshot(model_id: str, *, progress: bool, folder: Path | None = None) -> Path:
    """Download the model `model_id`, to the hub's own cache or to `folder`, and return where."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    offline = not reachable()
    options: dict[str, Any] = {} if progress else {"tqdm_class": _silent_tqdm()}
    try:
        path = snapshot_download(
            model_id,
            local_dir=folder,
            ignore_patterns=_IGNORED,
            local_files_only=offline,
            **options,
        )
    except GatedRepoError as exc:
        raise ModelError(
            f"{model_id} asks you to accept its licence: do so on its page, then set HF_TOKEN"
        ) from exc
    except RepositoryNotFoundError as exc:
        raise ModelError(
            f"the Hugging Face hub has no model {model_id!r} (or HF_TOKEN may not read it)"
        ) from exc
    except LocalEntryNotFoundError as exc:
        raise ModelError(
            f"{model_id} is not in the local Hugging Face cache and the hub cannot be reached: "
            "connect, or copy the model here and give its path, or use the model 'smollm2'"
        ) from exc
    except (HfHubHTTPError, OSError) as exc:
        raise ModelError(f"downloading {model_id} failed: {exc}; run the command again") from exc
    found = Path(path)
    if not any(found.glob("*.safetensors")):
        raise ModelError(f"{model_id} has no weights in safetensors format")
    return found


def _silent_tqdm() -> Any:
    from tqdm import tqdm

    class Silent(tqdm):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            kwargs.pop("name", None)
            super().__init__(*args, **{**kwargs, "disable": True})

    return Silent


def looks_like_id(ref: str) -> bool:
    """Tell whether `ref` has the form `organisation/name` or `name` of a hub model."""
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(ref)
    except HFValidationError:
        return False
    return not ref.startswith((".", "~", os.sep))
