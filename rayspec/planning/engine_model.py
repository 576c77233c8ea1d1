"""One engine with continuous batching, as vLLM's scheduler runs it, in simulated time.

While nothing arrives and nobody ends, steps repeat: they are taken in one jump, whose end a new
arrival may bring forward to the next boundary of a step. The rules are vLLM's: running sequences
come first, each with its K + 1 tokens; prompts share what is left of the token budget in the order
of arrival; at most `max_num_seqs` sequences run, and the rest waits. A step with prompt tokens
takes as long as its decoding, or an empty prefill if that is longer, a measured share of the
shorter (none where weights are read once), and its prompt tokens' time on top. Where steps are
scheduled ahead, a request waits for one more than the one in which it comes. A prompt's last chunk
yields its first token. A full KV cache and preemption are not simulated: choose `max_num_seqs` so
that the cache suffices.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from heapq import heappop, heappush
from math import ceil, sqrt

from rayspec.planning.workload import Workload
from rayspec.routing.cost_model import LaneCost
from rayspec.routing.types import Lane

__all__ = ["Engine", "Finished", "Taken"]

Finished = tuple[list[int], list[int]]
"""Requests that got their first token at the end of a jump, and those that are done."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What an engine could measure of a jump: so many steps, each of `seconds` in the mean.

    `batch` sequences of `context` tokens decoded with `drafts` in all; `prompt_tokens` came beside.
    """

    at: float
    steps: int
    seconds: float
    batch: int
    drafts: float
    context: float
    prompt_tokens: int = 0


class Engine:
    """The sequences of one engine and the jump that it is in."""

    def __init__(
        self,
        lane: Lane,
        cost: LaneCost,
        workload: Workload,
        *,
        contention: float = 1.0,
        overhead_s: float = 0.0,
        mixing: float = 0.0,
        busy_overhead_s: float = 0.0,
        wait_steps: int = 0,
        gpus: int = 0,
    ) -> None:
        self.lane = lane
        self.cost = cost
        self.contention = contention
        self.overhead_s = overhead_s  # what a request waits outside of it
        self.busy_overhead_s = busy_overhead_s  # and besides, if it comes while this works
        self.mixing = mixing
        self.wait_steps = wait_steps
        self.gpus = gpus
        self.version = 0  # grows whenever the end of the jump changes
        self.waiting: deque[tuple[int, int]] = deque()  # request, k
        self._fresh = 0  # of those that wait, the last so many came in this jump
        self._barred = 0  # and so many came in the one before, and wait for a step
        self.prefilling: deque[list[int]] = deque()  # request, k, prompt tokens left
        self.ends: list[tuple[int, int, int]] = []  # heap of last step, request, k
        self.step = 0
        self.backlog_tokens = 0
        self.drafted = 0.0
        self.busy_s = 0.0
        self.batch_s = 0.0  # integral of the decoding batch over busy time
        self.on_taken: Callable[[Taken], None] | None = None
        self._workload = workload
        self._drafts = 0.0  # that a step verifies
        self._context_at_0 = 0.0  # of all decoding sequences, at step 0 and per step
        self._context_per_step = 0.0
        self._began = 0.0
        self._jump = 0  # steps of it; 0 while idle
        self._first_s = self._growth_s = 0.0
        self._prompt_tokens = 0  # in this jump
        self.prefilled: list[tuple[int, int]] = []  # in this jump: request, k

    @property
    def load(self) -> int:
        """Requests in it."""
        return len(self.waiting) + self.running

    @property
    def running(self) -> int:
        """Requests that have a seat."""
        return len(self.prefilling) + len(self.prefilled) + len(self.ends)

    @property
    def idle(self) -> bool:
        """Whether it is in no jump."""
        return self._jump == 0

    @property
    def drafts(self) -> float:
        """Drafts that a step verifies now."""
        return self._drafts if self.ends else 0.0

    @property
    def context(self) -> float:
        """Mean length of a decoding sequence, 0 without one."""
        if not self.ends:
            return 0.0
        return (self._context_at_0 + self._context_per_step * self.step) / len(self.ends)

    def enqueue(self, request: int, k: int) -> None:
        """Take a request; call `begin` or `cut` next."""
        self.waiting.append((request, k))
        self._fresh += not self.idle and self.running < self.cost.max_num_seqs
        self.backlog_tokens += self._workload.prompts[request]

    def begin(self, now: float, slowdown: float = 1.0) -> float | None:
        """Start the next jump at a boundary of steps; return its end, None if there is no work."""
        if not self.ends and not self.prefilling:
            self._barred = 0  # nothing was scheduled ahead
        while len(self.waiting) > self._barred and self.running < self.cost.max_num_seqs:
            request, k = self.waiting.popleft()
            self.prefilling.append([request, k, self._workload.prompts[request]])
        self.version += 1
        self._began = now
        self._growth_s = 0.0
        self._prompt_tokens = 0
        self._jump = 1
        if self.prefilling:
            self._first_s = self._mixed_step() * slowdown
        elif self.ends:
            self._jump = 1 if self._barred else self.ends[0][0] - self.step
            self._first_s = self._decode_s(0) * slowdown
            if self._jump > 1:
                last = self._decode_s(self._jump - 1) * slowdown
                self._growth_s = (last - self._first_s) / (self._jump - 1)
        else:
            self._jump = 0
            return None
        return now + self._duration(self._jump)

    def cut(self, now: float) -> float | None:
        """Let the jump end at the next boundary from `now` on; return it if that is sooner."""
        if self._jump <= 1:
            return None
        steps = min(max(self._steps_within(now - self._began), 1), self._jump)
        if steps == self._jump:
            return None
        self._jump = steps
        self.version += 1
        return self._began + self._duration(steps)

    def end(self) -> Finished:
        """Account for the jump that is over."""
        taken = self._duration(self._jump)
        self._barred, self._fresh = self._fresh if self.wait_steps else 0, 0
        if self.on_taken is not None:
            self.on_taken(self._taken(taken))
        self.busy_s += taken
        self.batch_s += taken * len(self.ends)
        self.drafted += self._jump * self._drafts
        self.step += self._jump
        done: list[int] = []
        while self.ends and self.ends[0][0] <= self.step:
            end, request, k = heappop(self.ends)
            self._count(request, k, end, -1)
            done.append(request)
        started = [request for request, _ in self.prefilled]
        for request, k in self.prefilled:
            steps = self._workload.steps(k)[request]
            if steps:
                end = self.step + steps
                heappush(self.ends, (end, request, k))
                self._count(request, k, end, 1)
            else:
                done.append(request)
        self.prefilled.clear()
        return started, done

    def _taken(self, seconds: float) -> Taken:
        return Taken(
            at=self._began + seconds,
            steps=self._jump,
            seconds=seconds / self._jump,
            batch=len(self.ends),
            drafts=self.drafts,
            context=self.context,
            prompt_tokens=self._prompt_tokens,
        )

    def _count(self, request: int, k: int, end: int, sign: int) -> None:
        """Count a decoding sequence in or out; its context grows evenly over its steps."""
        needed, steps = self._workload.outputs[request] - 1, self._workload.steps(k)[request]
        rate = needed / steps
        self._drafts += sign * k * self._workload.coverage(request)
        self._context_per_step += sign * rate
        first = end - steps
        self._context_at_0 += sign * (self._workload.prompts[request] + 1 - rate * first)

    def _decode_s(self, ahead: int) -> float:
        """Return the time of the decoding step `ahead` of the next one."""
        batch = len(self.ends)
        context = (self._context_at_0 + self._context_per_step * (self.step + ahead)) / batch
        return self.cost.steps.seconds(batch, max(self._drafts, 0.0) / batch, max(context, 1.0))

    def _mixed_step(self) -> float:
        """Give prompts the rest of the token budget; return the time of the step."""
        free = max(self.cost.chunk_tokens - len(self.ends) - round(self._drafts), 0)
        tokens = 0
        while self.prefilling and tokens < free:
            first = self.prefilling[0]
            part = min(first[2], free - tokens)
            tokens += part
            first[2] -= part
            if first[2] == 0:
                self.prefilled.append((first[0], first[1]))
                self.prefilling.popleft()
        self.backlog_tokens -= tokens
        self._prompt_tokens = tokens
        decode = self._decode_s(0) if self.ends else 0.0
        prefill = self.cost.prefill
        if not tokens:
            return decode
        longer, shorter = max(decode, prefill.base_s), min(decode, prefill.base_s)
        return longer + self.mixing * shorter + tokens * prefill.per_token_s

    def _duration(self, steps: int) -> float:
        return steps * (self._first_s + self._growth_s * (steps - 1) / 2)

    def _steps_within(self, seconds: float) -> int:
        """Return the fewest steps that take at least `seconds`."""
        half = self._growth_s / 2
        linear = self._first_s - half
        if abs(half) * self._jump < 1e-9 * self._first_s:
            exact = seconds / self._first_s
        else:  # half · n² + linear · n = seconds
            exact = (sqrt(max(linear * linear + 4 * half * seconds, 0.0)) - linear) / (2 * half)
        return ceil(exact - 1e-9)
