"""Token ids of prompts, as the target's own server would make them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rayspec.distill.prompts import Question

__all__ = ["Encoder"]


class Encoder:
    """Applies the tokenizer and chat template in a model folder."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoTokenizer

        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        ends = self.tokenizer.eos_token_id
        self.end: int | None = ends[0] if isinstance(ends, list) else ends

    def prompt(self, question: Question) -> list[int]:
        """Return the token ids of a question that has a body."""
        body = question.body
        assert body is not None
        if "messages" in body and self.tokenizer.chat_template:
            text = self.tokenizer.apply_chat_template(
                list(body["messages"]),
                tools=body.get("tools"),
                tokenize=False,
                add_generation_prompt=True,
            )
            return self._ids(text, special=False)  # the template has written them
        if "messages" in body:
            return self._ids(str(body["messages"][-1]["content"]), special=True)
        return self._ids(str(body["prompt"]), special=True)

    def opening(self) -> list[int] | None:
        """Return what stands before a user's first message; None without a chat template."""
        if not self.tokenizer.chat_template:
            return None
        text = self.tokenizer.apply_chat_template(
            [{"role": "user", "content": "\0"}], tokenize=False, add_generation_prompt=True
        )
        return self._ids(text.split("\0")[0], special=False)

    def text(self, ids: list[int]) -> str:
        """Return the text of token ids without special tokens."""
        return str(self.tokenizer.decode(ids, skip_special_tokens=True)).strip()

    def _ids(self, text: str, *, special: bool) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=special).input_ids)
