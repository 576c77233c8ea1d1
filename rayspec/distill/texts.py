"""Texts of the target: prompts with its answers, as flat arrays that are stored in shards."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

__all__ = ["Text", "Texts"]


@dataclass(frozen=True, slots=True)
class Text:
    """Token ids of a prompt and of its answer, and how that was asked for."""

    prompt: Sequence[int]
    answer: Sequence[int]
    workload_class: str
    temperature: float = 0.0
    held_out: bool = False


@dataclass(frozen=True, slots=True)
class Texts:
    """Many texts, one after another.

    `tokens` int32 [tokens]; `answered` bool [tokens], true of what the target wrote; `ends` int64
    [texts]; `classes`, `temperatures` and `held_out` [texts].
    """

    tokens: npt.NDArray[np.int32]
    answered: npt.NDArray[np.bool_]
    ends: npt.NDArray[np.int64]
    classes: npt.NDArray[np.str_]
    temperatures: npt.NDArray[np.float32]
    held_out: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.ends)

    @classmethod
    def of(cls, texts: Iterable[Text]) -> Texts:
        """Return `texts` as arrays."""
        texts = list(texts)
        tokens = [np.asarray([*text.prompt, *text.answer], dtype=np.int32) for text in texts]
        answered = [np.arange(len(t)) >= len(x.prompt) for t, x in zip(tokens, texts, strict=True)]
        return cls(
            np.concatenate([*tokens, np.zeros(0, np.int32)]).astype(np.int32),
            np.concatenate([*answered, np.zeros(0, np.bool_)]).astype(np.bool_),
            np.cumsum([len(t) for t in tokens], dtype=np.int64),
            np.asarray([text.workload_class for text in texts], dtype=np.str_),
            np.asarray([text.temperature for text in texts], dtype=np.float32),
            np.asarray([text.held_out for text in texts], dtype=np.bool_),
        )

    @classmethod
    def join(cls, parts: Sequence[Texts]) -> Texts:
        """Return the texts of all parts."""
        parts = [part for part in parts if len(part)]
        if not parts:
            return cls.of(())
        starts = np.cumsum([0, *(len(part.tokens) for part in parts[:-1])])
        return cls(
            np.concatenate([part.tokens for part in parts]),
            np.concatenate([part.answered for part in parts]),
            np.concatenate([p.ends + s for p, s in zip(parts, starts, strict=True)]),
            np.concatenate([part.classes for part in parts]),
            np.concatenate([part.temperatures for part in parts]),
            np.concatenate([part.held_out for part in parts]),
        )

    @classmethod
    def load(cls, folder: Path) -> Texts:
        """Return the texts of all shards in `folder`, in the order of their names."""
        return cls.join([cls._read(file) for file in sorted(folder.glob("*.npz"))])

    @classmethod
    def _read(cls, file: Path) -> Texts:
        with np.load(file, allow_pickle=False) as arrays:
            return cls(**{name: arrays[name] for name in cls.__slots__})

    def save(self, file: Path) -> None:
        """Write one shard, whole or not at all."""
        partial = file.with_suffix(".partial")
        with partial.open("wb") as out:
            np.savez(out, **{name: getattr(self, name) for name in self.__slots__})
        partial.replace(file)

    @property
    def starts(self) -> npt.NDArray[np.int64]:
        """Where each text begins, [texts]."""
        starts = np.zeros_like(self.ends)
        starts[1:] = self.ends[:-1]
        return starts

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Tokens of each text, [texts]."""
        return self.ends - self.starts

    @property
    def answer_tokens(self) -> int:
        """Tokens that the target wrote."""
        return int(self.answered.sum())

    def pick(self, which: npt.NDArray[np.bool_]) -> Texts:
        """Return the texts that a mask [texts] names."""
        inside = np.repeat(which, self.lengths)
        return Texts(
            self.tokens[inside],
            self.answered[inside],
            np.cumsum(self.lengths[which], dtype=np.int64),
            self.classes[which],
            self.temperatures[which],
            self.held_out[which],
        )

    def rows(self, share: float, width: int, seed: int) -> Texts:
        """Put a `share` of the texts one after another into rows of at most `width` tokens.

        Class and temperature of a row are its first text's. The order of all rows is drawn anew.
        """
        rng, starts, lengths = np.random.default_rng(seed), self.starts, self.lengths
        order = rng.permutation(len(self))
        alone = len(order) - round(share * len(order))
        groups = [[int(index)] for index in order[:alone]]
        row: list[int] = []
        used = 0
        for index in order[alone:].tolist():
            length = int(lengths[index])
            if row and used + length > width:
                groups.append(row)
                row, used = [], 0
            row.append(index)
            used += length
        if row:
            groups.append(row)
        flat = [index for group in groups for index in group]
        where = np.concatenate(
            [np.arange(starts[i], self.ends[i]) for i in flat] or [np.zeros(0, np.int64)]
        )
        first = np.asarray([group[0] for group in groups], dtype=np.int64)
        return Texts(
            self.tokens[where],
            self.answered[where],
            np.cumsum([lengths[group].sum() for group in groups], dtype=np.int64),
            self.classes[first],
            self.temperatures[first],
            self.held_out[first],
        )
