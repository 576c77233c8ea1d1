"""`rayspec.json` in a draft's folder: whose draft it is, how good it was, what it learned from."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rayspec.draft.identity import model_hash, model_vocab_size, tokenizer_hash
from rayspec.errors import ConfigError

__all__ = ["NAME", "Acceptance", "Binding", "DraftManifest", "Unbound", "unbound"]

NAME: Final = "rayspec.json"

Share = Annotated[float, Field(ge=0, le=1)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Binding(_Part):
    """The target that a draft was trained for; hashes as in `rayspec.draft.identity`."""

    name: str
    model_hash: str
    tokenizer_hash: str
    vocab_size: int

    @classmethod
    def of(cls, folder: Path, name: str) -> Binding:
        """Read the target in a folder."""
        return cls(
            name=name,
            model_hash=model_hash(folder),
            tokenizer_hash=tokenizer_hash(folder),
            vocab_size=model_vocab_size(folder),
        )


class Acceptance(_Part):
    """One class on held-out prompts; see `acceptance.ClassAcceptance`."""

    texts: int
    tokens: int
    greedy: Share | None = Field(description="Temperature 0, per tested token.")
    by_position: list[Share] = Field(description="Of drafts at each position, temperature 0.")
    tokens_per_step: float | None = Field(description="With K drafts, the target's own included.")
    sampled: Share | None = Field(description="Temperature 1, Σ min(p, q).")


class DraftManifest(_Part):
    """What is known about a draft that was distilled here."""

    format: Literal[1] = 1
    kind: Literal["draft"] = "draft"
    created: str = Field(description="ISO date and time.")
    rayspec: str = Field(description="Version.")
    target: Binding
    k: int = Field(ge=1, description="Drafts of a step behind the acceptance.")
    acceptance: dict[str, Acceptance]
    data: dict[str, Any] = Field(description="What it learned from, with licences.")
    training: dict[str, Any] = Field(description="How it was trained.")

    @classmethod
    def load(cls, folder: Path) -> DraftManifest | None:
        """Return the manifest in a folder, None where there is none; ConfigError if it is bad."""
        file = folder / NAME
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise ConfigError("draft", str(file), f"cannot be read: {error}") from None
        if isinstance(content, dict) and content.get("kind") != "draft":
            return None  # a cached model's list of files
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "the file"
            raise ConfigError("draft", str(file), f"{where}: {first['msg']}") from None

    def save(self, folder: Path) -> None:
        """Write the manifest into a folder."""
        (folder / NAME).write_text(self.model_dump_json(indent=1) + "\n", encoding="utf-8")


@dataclass(frozen=True, slots=True)
class Unbound:
    """Why a draft was not made for a target; `weights` if these are all that differs."""

    why: str
    weights: bool


def unbound(draft: Path, manifest: DraftManifest, target: Path) -> Unbound | None:
    """Return what tells the target of a draft's `rayspec.json` from `target`, None if nothing.

    Reads all weights of the target.
    """
    bound = manifest.target
    if bound.tokenizer_hash != tokenizer_hash(target):
        return Unbound(f"made for the tokenizer of {bound.name}", weights=False)
    if bound.tokenizer_hash != tokenizer_hash(draft):
        return Unbound("its own tokenizer is not the one it was made with", weights=False)
    found = model_hash(target)
    if bound.model_hash == found:
        return None
    why = f"made for weights {bound.model_hash} of {bound.name}, these are {found}"
    return Unbound(why, weights=True)
