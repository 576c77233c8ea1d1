"""Drafting on vLLM's V1 model runner (CPU), as a `custom_class` proposer. Read at vLLM 0.32.0."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rayspec.vllm_ext.guard import Guard
from rayspec.vllm_ext.params import drafting_params
from rayspec.vllm_ext.session import TargetSession

__all__ = ["PROPOSER_PATH", "RemoteProposer"]

PROPOSER_PATH = "rayspec.vllm_ext.proposer.RemoteProposer"


class RunnerTokens:
    """`TokenSource` over the V1 runner's cached requests."""

    def __init__(self, runner: Any) -> None:
        self._runner = runner
        # Prompts of the requests that the step about to run adds to the runner.
        self.arriving: dict[str, list[int]] = {}

    def length(self, req_id: str) -> int | None:
        """Return how many tokens a request has; None for unknown ones and for embeddings."""
        if (prompt := self.arriving.get(req_id)) is not None:
            return len(prompt)
        state = self._runner.requests.get(req_id)
        if state is None or state.prompt_token_ids is None:
            return None
        return len(state.prompt_token_ids) + len(state.output_token_ids)

    def tokens(self, req_id: str, start: int) -> list[int]:
        """Return a request's tokens from `start` on."""
        if (prompt := self.arriving.get(req_id)) is not None:
            return prompt[start:]
        state = self._runner.requests[req_id]
        past_prompt = start - len(state.prompt_token_ids)
        output: list[int] = state.output_token_ids
        if past_prompt >= 0:
            return output[past_prompt:]
        return list(state.prompt_token_ids[start:]) + output


class RemoteProposer:
    """Answers the runner's `propose` with what the draft at the other end of the link says.

    vLLM builds it with its configuration alone; `bind` completes it. A proposer that was not
    bound, as on every rank but the first, proposes nothing.
    """

    def __init__(self, vllm_config: Any) -> None:
        self._k_max: int = vllm_config.speculative_config.num_speculative_tokens
        slots: int = vllm_config.scheduler_config.max_num_seqs
        self._free = list(range(slots))[::-1]
        self._k_step = self._k_max
        self._proposed = False
        # The draft's, and the candidate's if there is to be one; empty until bound.
        self._sessions: Sequence[TargetSession] = ()
        self._session_of: dict[str, TargetSession] = {}
        self._tokens: RunnerTokens | None = None
        self._runner: Any = None
        self._guard = Guard()

    def load_model(self, model: Any) -> None:
        """Nothing to load: vLLM calls this on every proposer."""

    def warm_up(self) -> None:
        """Nothing to load: there are no kernels."""

    def bind(
        self, runner: Any, tokens: RunnerTokens, sessions: Sequence[TargetSession], guard: Guard
    ) -> None:
        """Give the proposer what it works on: the draft's session, and that of a candidate."""
        self._runner, self._tokens, self._sessions = runner, tokens, sessions
        self._guard = guard

    def before_execute(self, scheduler_output: Any) -> None:
        """Follow the step's requests; the draft prefills new ones while the target does."""
        tokens = self._tokens
        if tokens is None:
            return
        self._proposed = False
        self._k_step = min(self._k_max, scheduler_output.num_spec_tokens_to_schedule)
        scheduled = {r: len(d) for r, d in scheduler_output.scheduled_spec_decode_tokens.items()}
        for session in self._sessions:
            session.counters.schedule(scheduled)
        for req_id in scheduler_output.finished_req_ids:
            self._release(req_id)
        for req_id in scheduler_output.preempted_req_ids or ():
            self._release(req_id)
        for new in scheduler_output.scheduled_new_reqs:
            if new.prompt_token_ids is not None:
                tokens.arriving[new.req_id] = list(new.prompt_token_ids)
                self._admit(new.req_id, new.sampling_params)
        for req_id in scheduler_output.scheduled_cached_reqs.resumed_req_ids:
            state = self._runner.requests.get(req_id)
            if state is not None:
                self._admit(req_id, state.sampling_params)

    def after_execute(self, scheduler_output: Any) -> None:
        """Let the runner's own state take over for requests that arrived with this step."""
        if self._tokens is not None:
            self._tokens.arriving.clear()

    def after_sample(self, output: Any) -> None:
        """Count the outcomes of a step near `max_model_len`, where vLLM does not call `propose`."""
        if self._proposed or not getattr(output, "req_ids", None):
            return
        for req_id, sampled in zip(output.req_ids, output.sampled_token_ids or (), strict=False):
            if (session := self._session_of.get(req_id)) is not None:
                session.counters.verify(req_id, len(sampled))

    def propose(
        self,
        sampled_token_ids: Sequence[Sequence[int]],
        num_tokens_no_spec: Any,
        token_ids_cpu: Any,
        slot_mappings: Any = None,
    ) -> list[list[int]]:
        """Return drafts for every request of the batch, in batch order."""
        drafts: list[list[int]] = [[] for _ in sampled_token_ids]
        if self._sessions:
            with self._guard("propose"):
                try:
                    drafts = self._propose(sampled_token_ids)
                except Exception:
                    for session in self._sessions:
                        session.invalidate()
                    raise
        return drafts

    def _propose(self, sampled_token_ids: Sequence[Sequence[int]]) -> list[list[int]]:
        self._proposed = True
        req_ids: list[str] = self._runner.input_batch.req_ids
        sampling: dict[int, list[str]] = {}
        for req_id, sampled in zip(req_ids, sampled_token_ids, strict=True):
            if not sampled:
                continue
            if req_id not in self._session_of:
                # Only after an error in `before_execute`: normally every request was announced.
                self._admit(req_id, self._runner.requests[req_id].sampling_params)
            session = self._session_of.get(req_id, self._sessions[0])
            session.counters.verify(req_id, len(sampled))
            sampling.setdefault(self._sessions.index(session), []).append(req_id)
        drafts: dict[str, list[int]] = {}
        for number, session in enumerate(self._sessions):
            proposed = session.step(sampling.get(number, ()), self._k_step)
            for req_id, tokens in proposed.items():
                session.counters.propose(req_id, len(tokens))
            drafts |= proposed
        return [drafts.get(req_id, []) for req_id in req_ids]

    def _admit(self, req_id: str, sampling_params: Any) -> None:
        self._release(req_id)
        if self._free:
            params = drafting_params(sampling_params)
            session = self._sessions[-1 if params.candidate else 0]
            self._session_of[req_id] = session
            session.admit(req_id, self._free.pop(), params)

    def _release(self, req_id: str) -> None:
        session = self._session_of.pop(req_id, None)
        slot = None if session is None else session.release(req_id)
        if slot is not None:
            self._free.append(slot)
