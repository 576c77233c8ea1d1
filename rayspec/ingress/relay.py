"""Carries one request to a lane and its answer back, and settles the accounts.

The first token of an answer is awaited before the client is told anything, so that a lane that is
full, down or slow can still be replaced by another one, or have a status of its own. Bodies are
passed on as vLLM wrote them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from functools import partial

from starlette.responses import Response

from rayspec.engine.messages import Begin, Call, End
from rayspec.errors import Overloaded, RequestError, Unavailable
from rayspec.ingress.deadline import Deadline, RequestTimeout, deadlines
from rayspec.ingress.endings import cause_of, error_event
from rayspec.ingress.lanes import LaneClient, LaneDown, LaneFull
from rayspec.ingress.streaming import RelayedStream
from rayspec.routing import Decision, Lane, Outcome, RequestView, Router, Speculation, Ticket
from rayspec.telemetry import journey
from rayspec.telemetry.decisions import DecisionLog
from rayspec.telemetry.history import History
from rayspec.telemetry.labels import ClassLabels
from rayspec.telemetry.lane_call import LaneCall
from rayspec.telemetry.metrics import IngressMetrics

__all__ = ["Relay", "RequestTimeout"]

logger = logging.getLogger(__name__)

# The ASGI server writes these itself.
_HOP_HEADERS = frozenset({"content-length", "transfer-encoding", "connection", "date", "server"})


@dataclass(slots=True)
class _Answer:
    """One attempt: an open stream of a lane and the ticket that counts it."""

    ticket: Ticket
    call: LaneCall
    items: AsyncGenerator[Begin | bytes | End, None]
    begin: Begin
    first: Begin | bytes | End | None
    view: RequestView
    started: float
    deadline: Deadline | None

    @property
    def lane(self) -> Lane:
        return self.ticket.decision.lane


class Relay:
    """Routes calls to lanes; see the module's docstring.

    `clock` is monotonic, in seconds; `timeout_s` bounds a whole request and
    `first_token_timeout_s` the wait for a stream's first token, None for no bound.
    """

    def __init__(
        self,
        lanes: Mapping[Lane, LaneClient],
        router: Router,
        metrics: IngressMetrics,
        *,
        timeout_s: float | None = None,
        first_token_timeout_s: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        history: History | None = None,
    ) -> None:
        self._lanes = lanes
        self._router = router
        self._metrics = metrics
        self._timeout_s = timeout_s
        self._first_token_timeout_s = first_token_timeout_s
        self._clock = clock
        self._log = DecisionLog(clock)
        self._labels = ClassLabels(router.acceptance.known)
        self._history = history or History(time.time)

    async def respond(
        self, view: RequestView, make_call: Callable[[Decision], Call], *, streams: bool = False
    ) -> Response:
        """Answer a request from the lane that the policy chooses; `make_call` tells what to send.

        `streams` tells that the client asked for a stream.

        Raises `Overloaded`, `Unavailable` or `RequestTimeout`; every other error is vLLM's answer.
        """
        started = self._clock()
        first_token_s = self._first_token_timeout_s if streams else None
        whole, first_by = deadlines(started, self._timeout_s, first_token_s)
        ticket = self._router.admit(view)
        while True:
            followed = self._count_decision(ticket)
            try:
                call = followed.outgoing(make_call(ticket.decision))
                answer = await self._open(call, followed, ticket, view, started, whole, first_by)
                if answer.begin.streams:
                    response: Response = RelayedStream(
                        self._body(answer), answer.begin.status, partial(self._unread, answer)
                    )
                else:
                    # Nothing has reached the client yet: a replica that dies now costs only time.
                    body = b"".join([chunk async for chunk in self._chunks(answer)])
                    response = Response(body, status_code=answer.begin.status)
            except (LaneFull, LaneDown) as error:
                ticket = self._spill(ticket, error, view)
                continue
            self._set_headers(response, answer)
            return response

    async def _open(
        self,
        call: Call,
        followed: LaneCall,
        ticket: Ticket,
        view: RequestView,
        started: float,
        whole: Deadline | None,
        first_by: Deadline | None,
    ) -> _Answer:
        lane = ticket.decision.lane
        self._metrics.in_flight.labels(lane).inc()
        items = self._lanes[lane].stream(call)
        try:
            begin = await self._next(items, first_by)
            if not isinstance(begin, Begin):
                raise LaneDown("the replica answered without a beginning")
            followed.began(begin)
            self._router.observe(begin.snapshot)
            first = await self._next(items, first_by) if begin.streams else None
        except BaseException as error:
            self._settle(ticket, None)
            self._close(followed, error)
            await items.aclose()
            raise
        return _Answer(ticket, followed, items, begin, first, view, started, whole)

    async def _next(
        self, items: AsyncIterator[Begin | bytes | End], deadline: Deadline | None
    ) -> Begin | bytes | End:
        remaining = None if deadline is None else max(0.0, deadline.at - self._clock())
        try:
            async with asyncio.timeout(remaining):
                return await anext(items)
        except TimeoutError:
            if deadline is None:
                raise
            raise deadline.error() from None
        except StopAsyncIteration:
            raise LaneDown("the replica ended its answer early") from None

    async def _chunks(self, answer: _Answer) -> AsyncGenerator[bytes, None]:
        """Yield the body; settle the ticket however the answer ends."""
        lane = answer.lane
        outcome: Outcome | None = None
        failure: BaseException | None = None
        first = True
        try:
            while True:
                item, answer.first = answer.first, None
                if item is None:
                    item = await self._next(answer.items, answer.deadline)
                if isinstance(item, End):
                    self._router.observe(item.snapshot)
                    outcome = self._outcome(answer, item)
                    return
                if isinstance(item, bytes):
                    if first:
                        first = False
                        self._router.start(answer.ticket)
                        elapsed = self._clock() - answer.started
                        self._metrics.first_chunk.labels(lane).observe(elapsed)
                        answer.call.first_chunk(elapsed)
                    yield item
        except BaseException as error:
            failure = error
            raise
        finally:
            self._settle(answer.ticket, outcome)
            self._close(answer.call, failure)
            self._metrics.duration.labels(lane).observe(self._clock() - answer.started)
            await answer.items.aclose()

    async def _body(self, answer: _Answer) -> AsyncGenerator[bytes, None]:
        """Yield a streamed body; a failure in its middle becomes an OpenAI error event."""
        try:
            async with contextlib.aclosing(self._chunks(answer)) as chunks:
                async for chunk in chunks:
                    yield chunk
        except (LaneFull, LaneDown) as error:
            logger.error("%s lane failed in the middle of an answer: %s", answer.lane, error)
            failure: RequestError = Unavailable(
                "The replica that answered this request was lost; send the request again."
            )
            yield error_event(failure)
        except RequestTimeout as error:
            yield error_event(error)

    async def _unread(self, answer: _Answer) -> None:
        """Settle a stream whose client left before any of it was sent."""
        self._settle(answer.ticket, None)
        self._close(answer.call, asyncio.CancelledError())
        await answer.items.aclose()

    def _spill(self, ticket: Ticket, error: LaneFull | LaneDown, view: RequestView) -> Ticket:
        """Return the ticket for the next lane, or raise what the client is told.

        A wish is kept while what it asks for is only full, not when it is gone.
        """
        lane = ticket.decision.lane
        full = isinstance(error, LaneFull)
        cause = "full" if full else "down"
        if not full:
            logger.warning("%s lane is down: %s", lane, error)
            self._router.ledger.forget(lane)
        journey.current().spilling()
        wish = view.speculation if full else Speculation.AUTO
        moved = None
        if not (full and view.lane is lane):
            moved = self._router.spill(ticket, cause, wish)
        if moved is not None:
            self._metrics.spills.labels(lane, cause).inc()
            return moved
        if full:
            raise Overloaded("Every lane that could serve this request is full; try again.")
        raise Unavailable(f"No replica of the {lane} lane can serve this request now; try again.")

    def _outcome(self, answer: _Answer, end: End) -> Outcome:
        decision, generation = answer.ticket.decision, end.generation
        answer.call.finished(generation)
        label = self._class_label(decision.workload_class)
        self._metrics.generated(decision.lane, label, generation)
        elapsed = self._clock() - answer.started
        if decision.prediction is not None and generation.output_tokens:
            self._metrics.measured(decision, label, elapsed)
        return Outcome(
            workload_class=decision.workload_class,
            lane=decision.lane,
            steps=generation.steps,
            drafted=generation.drafted,
            accepted=generation.accepted,
            output_tokens=generation.output_tokens,
            finished=True,
            by_accepted=generation.by_accepted,
            idle_steps=self._idle_steps(answer, end),
            k=self._router.asked_k(decision),
            body_bytes=answer.view.body_bytes,
            prompt_tokens=generation.prompt_tokens,
            sequences=answer.view.sequences,
            draft=decision.draft,
        )

    def _idle_steps(self, answer: _Answer, end: End) -> int:
        """Return the steps that had no draft although one was attached from beginning to end.

        Every step gives each sequence one token and those that were accepted; the first token of a
        sequence comes from its prompt.
        """
        both = answer.begin.snapshot, end.snapshot
        if answer.ticket.decision.draft is None:
            attached = all(each.attached for each in both)
        else:
            attached = all(each.candidate for each in both)
        if not attached or not self._router.asked_k(answer.ticket.decision):
            return 0
        generation = end.generation
        decoded = generation.output_tokens - generation.accepted - answer.view.sequences
        return max(decoded - generation.steps, 0)

    def _settle(self, ticket: Ticket, outcome: Outcome | None) -> None:
        if ticket.open:
            self._metrics.in_flight.labels(ticket.decision.lane).dec()
        self._router.finish(ticket, outcome)
        self._history.finished(ticket, outcome)

    def _class_label(self, workload_class: str) -> str:
        # The tracker pools classes beyond its cap, of those that were drafted for.
        return self._labels(self._router.acceptance.place(workload_class))

    def _close(self, call: LaneCall, error: BaseException | None) -> None:
        cause = None if error is None else cause_of(error)
        call.close(cause, error)
        if cause is not None:
            self._metrics.unfinished.labels(call.decision.lane, cause).inc()

    def _count_decision(self, ticket: Ticket) -> LaneCall:
        decision = ticket.decision
        label = self._class_label(decision.workload_class)
        self._metrics.decided(decision, label)
        self._log.decided(decision, label, self._router.ledger.loads)
        self._history.decided(ticket, label, self._router.ledger.loads())
        return journey.current().call(decision, self._router.ledger.loads)

    def _set_headers(self, response: Response, answer: _Answer) -> None:
        for name, value in answer.begin.headers:
            if name.lower() not in _HOP_HEADERS:
                response.headers[name] = value
        decision = answer.ticket.decision
        response.headers["x-rayspec-lane"] = decision.lane
        response.headers["x-rayspec-class"] = decision.workload_class
        response.headers["x-rayspec-reason"] = decision.reason
        if decision.draft is not None:
            response.headers["x-rayspec-draft"] = decision.draft
        if decision.predicted:
            response.headers["x-rayspec-predicted"] = decision.predicted
        label = self._class_label(decision.workload_class)
        self._metrics.requests.labels(decision.lane, label, str(answer.begin.status)).inc()
