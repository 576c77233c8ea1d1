"""What the device knows about sequences: the truth for the rounds, patched in stream order."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from rayspec.draft.rounds.kernels import patch
from rayspec.draft.rounds.spec import RoundsSpec
from rayspec.draft.rounds.staging import Staging

__all__ = ["SlotState"]

_PATCH_WORDS = 8192
_PATCH_BLOCK = 256


class SlotState:
    """Arrays over rows; row `rows` is a spare for places of a batch that are not used.

    All but the tokens are views of one int32 tensor, so that any set of changes is one small
    kernel. Changes wait until `flush`, which runs on the current stream like the rounds do.
    """

    def __init__(self, spec: RoundsSpec, max_blocks: int, device: torch.device) -> None:
        rows = spec.rows + 1
        self.map_words = spec.targets * spec.max_slots
        shapes = {
            "slot_map": (self.map_words,),
            "gen": (rows,),
            "length": (rows,),
            "kv_len": (rows,),
            "k_cap": (rows,),
            "limit": (rows,),
            "temperature": (rows,),
            "seed": (rows,),
            "n_drafted": (rows,),
            "tables": (rows, max_blocks),
        }
        sizes = [math.prod(shape) for shape in shapes.values()]
        self._words = torch.zeros(sum(sizes), dtype=torch.int32, device=device)
        parts = self._words.split(sizes)
        views = {
            name: part.view(shape)
            for (name, shape), part in zip(shapes.items(), parts, strict=True)
        }
        self._starts = {
            name: part.storage_offset() for name, part in zip(shapes, parts, strict=True)
        }
        self.slot_map = views["slot_map"].fill_(-1)
        self.gen = views["gen"].fill_(-1)
        self.length = views["length"]
        self.length[spec.rows] = 2  # the spare row is two tokens long, as the first pass wants
        self.kv_len = views["kv_len"]
        self.k_cap = views["k_cap"]
        self.limit = views["limit"]
        self.temperature = views["temperature"].view(torch.float32)
        self.seed = views["seed"]
        self.n_drafted = views["n_drafted"]
        self.tables = views["tables"]  # block 0 belongs to nobody, and zeros point there
        self.drafted = torch.zeros(rows, spec.k_max, dtype=torch.int32, device=device)
        # A round's tokens fit behind the longest sequence without a bound being checked.
        self.tokens = torch.zeros(
            rows, spec.max_len + spec.k_max + 2, dtype=torch.int32, device=device
        )
        self._max_blocks = max_blocks
        self._pairs = torch.zeros(2 * _PATCH_WORDS, dtype=torch.int32, device=device)
        self._staging = Staging(max(4 * _PATCH_WORDS, 2 * spec.max_len), device)
        self._changes: dict[int, int] = {}
        self.placed = False  # tokens or blocks were given since the last flush

    def set(self, name: str, row: int, value: int) -> None:
        """Change a word of an array; the last change of a word wins."""
        self._changes[self._starts[name] + row] = value

    def set_table(self, row: int, start: int, blocks: Sequence[int]) -> None:
        """Change a row's blocks from entry `start` on."""
        self.placed = True
        first = self._starts["tables"] + row * self._max_blocks + start
        self._changes.update(zip(range(first, first + len(blocks)), blocks, strict=True))

    def set_tokens(self, row: int, tokens: Sequence[int]) -> None:
        """Write a sequence's tokens, at once."""
        self.placed = True
        self._staging.upload(tokens, self.tokens[row])

    def flush(self) -> None:
        """Bring all changes to the device, on the current stream."""
        changes = list(self._changes.items())
        self._changes.clear()
        self.placed = False
        for start in range(0, len(changes), _PATCH_WORDS):
            piece = changes[start : start + _PATCH_WORDS]
            count = len(piece)
            pairs = [place for place, _ in piece] + [value for _, value in piece]
            self._staging.upload(pairs, self._pairs)
            grid = ((count + _PATCH_BLOCK - 1) // _PATCH_BLOCK,)
            patch[grid](self._words, self._pairs, count, BLOCK=_PATCH_BLOCK)

    def warm_up(self) -> None:
        """Compile and load what later uploads use."""
        self.set("n_drafted", self.gen.shape[0] - 1, 0)
        self.flush()
