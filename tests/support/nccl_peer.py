"""The draft's end of a NCCL link, in a process of its own: drafts count on from the last token.

python -m tests.support.nccl_peer STORE_PORT EPOCH SLOTS K Q_TOP
"""

from __future__ import annotations

import sys

import torch

from rayspec.link.gloo import DRAFT_RANK
from rayspec.link.nccl import NcclGroups
from rayspec.link.protocol import D2T, T2D, FrameShape, StepRow
from rayspec.link.rendezvous import join_store


def main(store_port: int, epoch: int, slots: int, k: int, q_top: int) -> None:
    device = torch.device("cuda", 0)
    shape = FrameShape(slots, k)
    store = join_store("127.0.0.1", store_port, timeout_s=60)
    groups = NcclGroups(store, rank=DRAFT_RANK, epoch=epoch, device=device, timeout_s=60)
    frame = torch.zeros(shape.size, dtype=torch.int32, device=device)
    q = torch.zeros((slots, k, 2 * q_top), dtype=torch.int32, device=device)
    last = [0] * slots
    while True:
        groups.recv([frame])
        step = T2D.unpack(frame.cpu(), shape)
        rows = []
        for row in step.rows:
            if row.tokens:
                last[row.slot] = row.tokens[-1]
            drafts = range(last[row.slot] + 1, last[row.slot] + 1 + step.k_want)
            rows.append(StepRow(row.slot, row.gen, tuple(drafts)))
        if step.k_want:
            q.fill_(step.step)
            reply = D2T(epoch, step.step, 1, rows).pack(shape).to(device)
            groups.send([reply, q] if q_top else [reply])


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
