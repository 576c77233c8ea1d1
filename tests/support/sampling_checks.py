"""What has to hold of the kernels that choose drafts, on any device."""

from __future__ import annotations

import math

import torch
import triton

from rayspec.draft.rounds.layout import Order
from rayspec.draft.rounds.sampling import (
    choose_greedy,
    choose_sparse,
    partial_largest,
    partial_top,
)
from tests.support.rounds_rig import Rig

CHUNK = 256


class Bench:
    """The buffers of one choice: batch place b has row b and frame slot b."""

    def __init__(self, device: str, logits: torch.Tensor, temperature: list[float], top: int = 1):
        rows, vocab = logits.shape
        self.rows, self.vocab, self.top, self.logits = rows, vocab, top, logits
        self.chunk = max(top, min(CHUNK, triton.next_power_of_2(vocab)))
        self.parts = triton.cdiv(vocab, self.chunk)

        def ints(*shape: int, dtype: torch.dtype = torch.int32) -> torch.Tensor:
            return torch.zeros(shape, dtype=dtype, device=device)

        self.order = ints(Order.WORDS, dtype=torch.int64)
        self.q = ints(rows, 4, 2 * top)
        self.order[Order.Q], self.order[Order.K_MAX] = self.q.data_ptr(), 4
        self.batch_row = torch.arange(rows, dtype=torch.int32, device=device)
        self.batch_k, self.batch_len = ints(rows) + 4, ints(rows) + 7
        self.temperature = torch.tensor(temperature, dtype=torch.float32, device=device)
        self.seed = torch.arange(rows, dtype=torch.int32, device=device) * 7 + 1
        self.drafted = ints(rows, 4)
        self.ids, self.lens = ints(rows), ints(rows)
        self.positions, self.slots = ints(rows, dtype=torch.int64), ints(rows, dtype=torch.int64)
        self.table = ints(rows, 8) + 3
        self.values = torch.zeros(rows, self.parts, device=device)
        self.columns = ints(rows, self.parts)
        self.keys = ints(rows, self.parts, top, dtype=torch.int64)
        self.static = {
            "HAS_IDS": False,
            "PARTS_P": triton.next_power_of_2(self.parts),
            "K": 4,
            "BLOCK_SIZE": 16,
        }

    def following(self, step: int) -> tuple[object, ...]:
        return (
            self.drafted,
            self.ids,
            self.positions,
            self.lens,
            self.table,
            self.slots,
            step,
            self.parts,
        )

    def greedy(self, step: int = 0) -> list[int]:
        grid = (self.rows, self.parts)
        partial_largest[grid](
            self.logits,
            self.values,
            self.columns,
            self.logits.stride(0),
            self.vocab,
            CHUNK=self.chunk,
        )
        choose_greedy[(self.rows,)](
            self.order,
            self.values,
            self.columns,
            self.columns,
            self.batch_row,
            self.batch_k,
            self.batch_len,
            *self.following(step),
            self.table.stride(0),
            **self.static,
        )
        return list(self.drafted[:, step].tolist())

    def sparse(self, step: int = 0) -> list[int]:
        grid = (self.rows, self.parts)
        partial_top[grid](
            self.order,
            self.logits,
            self.keys,
            self.batch_row,
            self.temperature,
            self.logits.stride(0),
            self.vocab,
            CHUNK=self.chunk,
            M=self.top,
        )
        choose_sparse[(self.rows,)](
            self.order,
            self.keys,
            self.columns,
            self.temperature,
            self.seed,
            self.batch_row,
            self.batch_row,
            self.batch_k,
            self.batch_len,
            *self.following(step),
            self.vocab,
            self.table.stride(0),
            M=self.top,
            **self.static,
        )
        return list(self.drafted[:, step].tolist())

    def told(self, step: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the ids and log-weights given out, [rows, M] each."""
        line = self.q[:, step]
        return line[:, : self.top], line[:, self.top :].contiguous().view(torch.float32)


def random_logits(device: str, rows: int, vocab: int, dtype: torch.dtype) -> torch.Tensor:
    generator = torch.Generator().manual_seed(vocab)
    # A row of the storage is longer than the vocabulary, as with a padded head.
    storage = torch.randn(rows, vocab + 8, generator=generator) * 4
    storage[:, vocab:] = 1e4
    return storage.to(device, dtype)[:, :vocab]


def check_greedy_takes_the_lowest_of_equals(device: str, vocab: int) -> None:
    logits = random_logits(device, 4, vocab, torch.bfloat16)
    logits[0, [vocab - 1, vocab // 2, 3]] = 90.0
    logits[1, vocab - 1] = 90.0
    logits[2] = -float("inf")
    bench = Bench(device, logits, [0.0] * 4)
    chosen = bench.greedy()
    assert chosen[:3] == [3, vocab - 1, 0]
    assert chosen[3] == int((logits[3] == logits[3].max()).nonzero()[0])
    assert bench.ids.tolist() == chosen
    assert (bench.positions.tolist(), bench.lens.tolist()) == ([7] * 4, [8] * 4)
    assert bench.slots.tolist() == [3 * 16 + 7] * 4
    logits[0] = float("nan")
    assert bench.greedy()[0] == 0


def check_top_and_weights(device: str, vocab: int, top: int) -> None:
    logits = random_logits(device, 4, vocab, torch.float32)
    logits[1, : 2 * top] = 50.0  # more equals than places
    logits[3, 5:] = -float("inf")
    temperatures = [0.5, 1.0, 0.0, 2.0]
    bench = Bench(device, logits, temperatures, top)
    chosen = bench.sparse()
    ids, weights = bench.told()
    for row, temperature in enumerate(temperatures):
        scaled = logits[row] / (temperature or 1.0)
        expected = torch.sort(scaled, descending=True, stable=True).indices[:top]
        finite = scaled[expected] > -float("inf")
        assert ids[row].tolist()[: int(finite.sum())] == expected[finite].tolist()
        assert chosen[row] in ids[row].tolist()
        if temperature == 0.0:
            assert weights[row].tolist() == [0.0] + [-math.inf] * (top - 1)
            assert chosen[row] == int(expected[0])
            continue
        reference = torch.log_softmax(scaled[expected].double(), 0).float()
        # A vocabulary smaller than the top leaves places that nothing may be drawn from.
        torch.testing.assert_close(weights[row, :vocab], reference, rtol=1e-5, atol=1e-5)
        assert (weights[row, vocab:] == -math.inf).all()
        assert abs(float(weights[row].exp().sum()) - 1.0) < 1e-5


def check_sampled_ids_follow_the_weights(device: str, *, rows: int, rounds: int) -> None:
    """χ² of what is drawn against what is given out, over positions, steps and seeds."""
    top = 8
    logits = random_logits(device, 1, 60, torch.float32).repeat(rows, 1) / 3
    bench = Bench(device, logits, [1.3] * rows, top)
    counts = dict.fromkeys(range(60), 0)
    seen: list[list[int]] = []
    for number in range(rounds):
        bench.batch_len.fill_(7 + number // 4)
        drawn = bench.sparse(number % 4)
        seen.append(drawn)
        for token in drawn:
            counts[token] += 1
    ids, weights = bench.told(3)
    total = rows * rounds
    statistic = 0.0
    for token, weight in zip(ids[0].tolist(), weights[0].exp().tolist(), strict=True):
        statistic += (counts.pop(token) - total * weight) ** 2 / (total * weight)
    assert not any(counts.values())
    assert statistic < 29.9  # 7 degrees of freedom, p = 0.0001
    bench.batch_len.fill_(7)
    assert bench.sparse(0) == seen[0]  # the same seed, position and step draw the same
    assert len({tuple(drawn) for drawn in seen}) > rounds // 2


def check_drafts_are_given_out_with_their_weights(device: str) -> None:
    """Through the engine: every draft is one of the tokens given out for its slot and step."""
    rig = Rig(device, top_m=8)
    target = rig.target(q_mode="sparse", q_top=8)
    other = rig.target(slots=2)
    target.begin(1, list(range(9)), temperature=0.8, seed=5)
    target.begin(2, list(range(4, 12)), temperature=0.0)
    other.begin(0, list(range(9)), temperature=0.8)
    for token in (1, 2, 3):
        drafts = target.step(s1=[token], s2=[token])
        assert target.q is not None
        for slot in (1, 2):
            ids = target.q[slot, :, :8]
            weights = target.q[slot, :, 8:].contiguous().view(torch.float32)
            for step, draft in enumerate(drafts[slot]):
                place = ids[step].tolist().index(draft)
                assert float(weights[step, place]) > -20.0
                assert abs(float(weights[step].exp().sum()) - 1.0) < 1e-5
                if slot == 2:
                    assert place == 0
                    assert weights[step].tolist() == [0.0] + [-math.inf] * 7
        assert len(other.step(s0=[token])[0]) == 4  # a target without q gets greedy drafts
    rig.close()
