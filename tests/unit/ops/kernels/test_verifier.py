"""`FusedVerifier` against vLLM's `RejectionSampler`, on a CPU with the reference op."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from rayspec_triton_cpu.interpreter import DeviceLibrary, accept_integer_masks
from vllm import SamplingParams
from vllm.config import VllmConfig
from vllm.v1.sample.ops import topk_topp_sampler
from vllm.v1.worker.gpu import buffer_utils
from vllm.v1.worker.gpu.sample.sampler import Sampler
from vllm.v1.worker.gpu.spec_decode import rejection_sampler_utils
from vllm.v1.worker.gpu.spec_decode.rejection_sampler import RejectionSampler
from vllm.v1.worker.gpu.states import RequestState

from rayspec.vllm_ext import verifier
from rayspec.vllm_ext.verifier import FusedVerifier, install

accept_integer_masks()
rejection_sampler_utils.tldevice = DeviceLibrary
# vLLM's own fallback: no memory can be pinned here.
buffer_utils.is_uva_available = lambda: False
# The interpreter does not run vLLM's kernel for larger batches; in torch it is the same.
topk_topp_sampler.HAS_TRITON = False

VOCAB, K, SLOTS = 40, 3, 8
CPU = torch.device("cpu")
DRAFTS = (3, 1, 0, 2, 3)
# Whatever is drawn, these give one token.
CERTAIN = (
    SamplingParams(temperature=0.0),
    SamplingParams(temperature=0.7, top_k=1),
    SamplingParams(temperature=1.0, top_p=1e-6),
    SamplingParams(temperature=1.3, min_p=1.0),
    SamplingParams(temperature=0.0),
)


class Rig:
    """vLLM's sampler for five requests, in slots of no particular order, and a batch of theirs."""

    def __init__(self, params: tuple[SamplingParams, ...] = CERTAIN, **settings: Any) -> None:
        draw = torch.Generator().manual_seed(3)
        states = RequestState(SLOTS, 64, 64, K, VOCAB, CPU)
        self.sampler = Sampler(VllmConfig(), SLOTS, VOCAB, CPU, states, **settings)
        self.slots = []
        for number, param in enumerate(params):
            states.add_request(f"r{number}", 4, list(range(4)), 4, 32)
            self.slots.append(states.req_id_to_index[f"r{number}"])
            self.sampler.add_request(self.slots[number], param)
        states.apply_staged_writes()
        self.sampler.apply_staged_writes()
        config = SimpleNamespace(
            num_speculative_tokens=K,
            enable_adaptive_verification=False,
            rejection_sample_method="standard",
        )
        self.theirs = RejectionSampler(self.sampler, config, CPU)
        counts = [n + 1 for n in DRAFTS]
        starts = np.cumsum([0, *counts]).astype(np.int32)
        rows = int(starts[-1])
        self.logits = torch.randn((rows, VOCAB), generator=draw) * 3
        ids = torch.randint(0, VOCAB, (rows,), generator=draw)
        best = self.logits.argmax(dim=1)
        likely = torch.rand(rows, generator=draw) < 0.7
        ids[1:] = torch.where(likely[1:], best[:-1], ids[1:])
        slots = np.array(self.slots, dtype=np.int32)
        places = torch.cat([torch.arange(n) for n in counts])
        self.batch = SimpleNamespace(
            num_reqs=len(counts),
            num_draft_tokens=sum(DRAFTS),
            input_ids=ids.to(torch.int32),
            positions=places + 10,
            logits_indices=torch.arange(rows),
            idx_mapping=torch.from_numpy(slots),
            idx_mapping_np=slots,
            expanded_idx_mapping=torch.from_numpy(np.repeat(slots, counts)),
            expanded_local_pos=places.to(torch.int32),
            cu_num_logits=torch.from_numpy(starts),
            cu_num_logits_np=starts,
            seq_lens=torch.full((len(counts),), 14, dtype=torch.int32),
            seq_lens_cpu_upper_bound=torch.full((len(counts),), 14, dtype=torch.int32),
        )

    def both(self, invalid: torch.Tensor | None = None) -> tuple[Any, Any]:
        """Return what vLLM's sampler says, and what ours does in its place."""
        ours = FusedVerifier(self.theirs, None)
        results = [
            sampler(self.logits.clone(), self.batch, None, invalid)
            for sampler in (self.theirs, ours)
        ]
        assert ours.enabled
        return results[0], results[1]


def assert_same(theirs: Any, ours: Any) -> None:
    """Fail unless both say the same of every request."""
    assert ours.num_sampled.tolist() == theirs.num_sampled.tolist()
    assert ours.num_rejected.tolist() == theirs.num_rejected.tolist()
    for mine, others, count in zip(
        ours.sampled_token_ids.tolist(),
        theirs.sampled_token_ids.tolist(),
        ours.num_sampled.tolist(),
        strict=True,
    ):
        assert mine[:count] == others[:count]


def test_what_is_certain_is_the_same() -> None:
    theirs, ours = Rig().both()
    assert_same(theirs, ours)
    assert len(set(ours.num_sampled.tolist())) > 1


def test_invalid_drafts_and_those_within_the_prompt() -> None:
    rig = Rig()
    invalid = torch.zeros(rig.logits.shape[0], dtype=torch.bool)
    invalid[2] = True
    rig.batch.positions[-4:] = torch.arange(4)
    theirs, ours = rig.both(invalid)
    assert_same(theirs, ours)
    assert int(ours.num_sampled[0]) <= 2
    assert int(ours.num_sampled[-1]) == 1


def test_penalties_and_biases_come_before() -> None:
    params = (
        SamplingParams(temperature=0.0, logit_bias={7: 50.0}),
        SamplingParams(temperature=0.0, repetition_penalty=3.0),
        SamplingParams(temperature=1.0, top_k=1, presence_penalty=2.0),
        SamplingParams(temperature=0.0, frequency_penalty=2.0),
        SamplingParams(temperature=0.0),
    )
    theirs, ours = Rig(params).both()
    assert_same(theirs, ours)
    assert int(ours.sampled_token_ids[0, 0]) == 7


def test_logprobs_are_those_of_vllm() -> None:
    params = tuple(SamplingParams(temperature=0.0, logprobs=n) for n in (2, 0, 3, 1, 2))
    theirs, ours = Rig(params).both()
    assert_same(theirs, ours)
    got, expected = ours.logprobs_tensors, theirs.logprobs_tensors
    # Rows of rejected drafts are nobody's.
    starts = Rig().batch.cu_num_logits_np
    for start, count in zip(starts[:-1], ours.num_sampled.tolist(), strict=True):
        rows = slice(int(start), int(start) + count)
        assert torch.equal(got.logprob_token_ids[rows], expected.logprob_token_ids[rows])
        assert torch.equal(got.logprobs[rows], expected.logprobs[rows])


def test_processed_logprobs_go_vllm_s_way(monkeypatch: pytest.MonkeyPatch) -> None:
    params = tuple(SamplingParams(temperature=0.0, logprobs=1) for _ in DRAFTS)
    rig = Rig(params, logprobs_mode="processed_logprobs")
    monkeypatch.setattr(verifier, "verify", lambda _: pytest.fail("not ours to verify"))
    assert_same(*rig.both())


def test_vllm_verifies_after_a_failure(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    rig = Rig()
    calls = []

    def fail(batch: Any) -> None:
        calls.append(batch)
        raise RuntimeError("lost")

    monkeypatch.setattr(verifier, "verify", fail)
    ours = FusedVerifier(rig.theirs, None)
    for _ in range(2):
        assert_same(rig.theirs(rig.logits, rig.batch), ours(rig.logits, rig.batch))
    assert len(calls) == 1
    assert not ours.enabled
    assert "vLLM verifies from now on" in caplog.text


def test_install_says_why_not(caplog: pytest.LogCaptureFixture) -> None:
    rig = Rig()
    runner = SimpleNamespace(device=CPU, rejection_sampler=rig.theirs, speculator=None)
    assert not install(runner)
    assert runner.rejection_sampler is rig.theirs
    assert "no CUDA device" in caplog.text


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda sampler: setattr(sampler, "use_block_verification", True), "method"),
        (lambda sampler: setattr(sampler, "watermark_key", 1), "watermarks"),
        (lambda sampler: setattr(sampler.sampler, "use_fp64_gumbel", True), "float64"),
        (lambda sampler: sampler.sampler.logits_processors.append(object()), "processors"),
    ],
)
def test_what_kernels_do_not_cover(change: Any, said: str) -> None:
    rig = Rig()
    assert verifier._unfit(rig.theirs, None) is None
    change(rig.theirs)
    reason = verifier._unfit(rig.theirs, None)
    assert reason is not None
    assert said in reason
