"""What a distillation is told: values only, checked once."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal

from rayspec.errors import ConfigError

__all__ = ["DRAFT_LENGTH", "Backend", "DistillSpec", "LossKind"]

LossKind = Literal["kl", "reverse-kl", "tv"]
Backend = Literal["auto", "vllm", "transformers"]

DRAFT_LENGTH: Final = 4
"""K of every acceptance that is reported."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DistillSpec:
    """One distillation. Lengths are tokens, `minutes` the whole command's, shares of it 0 to 1.

    `texts` bounds the prompts that are answered, None leaves that to the time; so does `steps`.
    `batch_tokens` counts padding. `join` is the share of answers that are put one after another
    into rows of up to `width`, so that a draft also learns what is far from the beginning.
    `engines` of vLLM share one GPU, because one leaves it idle while it schedules; 0 is by cores.
    """

    target: Path
    target_name: str
    out: Path
    work: Path
    prompts: Path | None = None
    text: Path | None = None
    texts: int | None = None
    steps: int | None = None
    minutes: float = 15.0
    generation_share: float = 0.42
    answer_tokens: int = 256
    backend: Backend = "auto"
    engines: int = 0
    loss: LossKind = "kl"
    top_k: int = 32
    batch_tokens: int = 32768
    rate: float = 2e-3
    join: float = 0.1
    width: int = 2048
    vocab_trim: int = 0
    device: str = "auto"
    seed: int = 0

    def check(self) -> None:
        """Raise ConfigError for what cannot be."""
        limits: tuple[tuple[str, float, float, float], ...] = (
            ("minutes", self.minutes, 0.05, 24 * 60),
            ("generation_share", self.generation_share, 0.05, 0.9),
            ("answer_tokens", self.answer_tokens, 8, 4096),
            ("top_k", self.top_k, 1, 1024),
            ("batch_tokens", self.batch_tokens, 256, 1 << 22),
            ("rate", self.rate, 1e-6, 1.0),
            ("join", self.join, 0.0, 1.0),
        )
        for name, value, low, high in limits:
            if not low <= value <= high:
                raise ConfigError(name, value, f"must be {low:g} to {high:g}")
        if self.out.exists() and (not self.out.is_dir() or any(self.out.iterdir())):
            raise ConfigError("out", str(self.out), "is there already; give a new folder")

    def data_identity(self) -> dict[str, Any]:
        """Return what decides which texts are written and how they are scored."""
        names = ("target", "prompts", "text", "texts", "answer_tokens", "top_k", "join", "width")
        values = asdict(self)
        return {name: _plain(values[name]) for name in (*names, "seed")}


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value
