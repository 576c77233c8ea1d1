"""The Locust user: holds conversations over streams, or sends requests at a rate."""

from __future__ import annotations

import hashlib
import itertools
import json
import random
from collections.abc import Iterator
from typing import Any, ClassVar
from uuid import uuid4

import gevent
from gevent.pool import Group
from locust import FastHttpUser, task
from locust.contrib.fasthttp import FAILURE_EXCEPTIONS

from load_tests.traffic.answer import Answer, error_text
from load_tests.traffic.collect import Collector
from load_tests.traffic.options import limits_of
from load_tests.traffic.server import ask_server
from load_tests.workloads import PROFILES, Session, Sessions, deal, parse_mix

__all__ = ["StreamingUser"]

_NUMBERS = itertools.count()
_PATH = "/v1/chat/completions"
# Of a client that is refused; also keeps a closed loop from spinning on a server that is down.
_PAUSE_S = 1.0
# Not a multiple of the golden ratio: workers would deal the same classes one after another.
_APART = 0.7548776662


class _Conversation:
    """A session under way: both sides' messages, and a salt of its own for the prefix cache."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.messages: list[dict[str, str]] = []
        self.turn = 0
        self.salt = uuid4().hex

    def say(self) -> None:
        """Add the next turn's question."""
        self.messages.append({"role": "user", "content": self.session.turns[self.turn]})

    def hear(self, answer: Answer, context: int | None) -> bool:
        """Add the answer; return whether there is another turn."""
        self.messages.append({"role": "assistant", "content": answer.text})
        self.turn += 1
        used = answer.prompt_tokens + answer.output_tokens
        return self.turn < len(self.session.turns) and self.session.fits(self.turn, used, context)


class StreamingUser(FastHttpUser):
    """Waits for every answer before the next turn or, in open loop, sends without waiting."""

    host = "http://127.0.0.1:8000"
    # A CPU that prefills many long prompts takes minutes to say its first word.
    network_timeout = 600.0
    # In open loop one user has many requests under way.
    concurrency = 4096
    collector: ClassVar[Collector]
    dealt: ClassVar[Iterator[str] | None] = None
    """The classes of the next sessions, for all users of this process."""

    def on_start(self) -> None:
        """Prepare what this user will ask."""
        options = self.collector.options
        host = self.environment.host or self.host
        self._served = ask_server(host, options.api_key)
        worker = getattr(self.environment.runner, "worker_index", 0)
        if self.dealt is None:
            start = options.seed + worker * _APART
            StreamingUser.dealt = deal(parse_mix(options.mix, PROFILES), start)
        self._rng = random.Random(f"{options.seed}/{worker}/{next(_NUMBERS)}")
        limits = limits_of(options, self._served.context)
        self._sessions = Sessions(options.seed, options.sessions, limits)
        self._conversation: _Conversation | None = None
        self._sent = Group()

    def on_stop(self) -> None:
        """Wait for what open loop has sent."""
        self._sent.join(timeout=self.environment.stop_timeout)
        self._sent.kill()

    def wait_time(self) -> float:
        """Return the seconds to the next task: a Poisson process, or the time to think."""
        live, think = self.collector.live, self.collector.options.think
        if live.over:
            return _PAUSE_S
        if live.rate is not None:
            return self._rng.expovariate(live.rate)
        return self._rng.expovariate(1 / think) if think > 0 else 0.0

    @task
    def ask(self) -> None:
        """Send one request: the next turn, or in open loop the first one of a session."""
        if self.collector.live.over:
            return
        if self.collector.live.rate is not None:
            self._sent.spawn(self._stream, self._begin())
            return
        conversation = self._conversation or self._begin()
        answer = self._stream(conversation)
        goes_on = answer.error is None and conversation.hear(answer, self._served.context)
        self._conversation = conversation if goes_on else None
        if answer.error is not None:
            gevent.sleep(_PAUSE_S)

    def _begin(self) -> _Conversation:
        assert self.dealt is not None
        workload = next(self.dealt)
        return _Conversation(self._sessions.draw(workload, self._rng))

    def _body(self, conversation: _Conversation) -> dict[str, Any]:
        options, session = self.collector.options, conversation.session
        body: dict[str, Any] = {
            "model": self._served.model,
            "messages": conversation.messages,
            "max_tokens": session.max_tokens[conversation.turn],
            "temperature": options.temperature,
            "stream": True,
            "stream_options": {"include_usage": True},
            "return_token_ids": True,
            # Another session with the same text costs as much as the first; later turns of this
            # one do not.
            "cache_salt": conversation.salt,
        }
        if session.json:
            body["response_format"] = {"type": "json_object"}
        if options.speculation != "auto":
            body["rayspec"] = {"speculation": options.speculation}
        if options.name_classes == "yes":
            body["metadata"] = {"workload_class": session.workload}
        return body

    def _stream(self, conversation: _Conversation) -> Answer:
        """Send one turn and read its answer, for Locust's statistics and the collector's."""
        conversation.say()
        workload, body = conversation.session.workload, self._body(conversation)
        step = self.collector.live.index
        headers = {"Accept-Encoding": "identity"}
        if key := self.collector.options.api_key:
            headers["Authorization"] = f"Bearer {key}"
        answer = Answer()
        answer.begin()
        with self.client.post(
            _PATH, json=body, headers=headers, name=workload, stream=True, catch_response=True
        ) as response:
            self._read(response, answer, workload)
            # Where Locust has the method: figures of the lanes stay apart.
            response.request_meta["request_type"] = answer.lane
            response.request_meta["response_time"] = answer.e2e_ms
            response.request_meta["response_length"] = len(answer.text)
            if answer.error is None:
                response.success()
            else:
                response.failure(answer.error)
        if answer.error is None:
            self._log(workload, answer)
        greedy = body["temperature"] == 0
        prompt = _digest([body["messages"], body["max_tokens"]]) if greedy else None
        self.collector.ended(workload, answer, step, prompt, _digest(answer.text))
        return answer

    def _read(self, response: Any, answer: Answer, workload: str) -> None:
        """Read the stream to its end; whatever goes wrong is told in `answer`."""
        try:
            answer.headers(response.headers or {})
            if response.status_code != 200:
                body = response.content if response.status_code else b""
                told = error_text(response.status_code, body) if body else None
                answer.failure = told or str(response.error or f"status {response.status_code}")
                return
            while line := response.stream.readline(b"\n"):
                if tokens := answer.line(line):
                    self.collector.arrived(workload, answer.lane, tokens)
        except (*FAILURE_EXCEPTIONS, ValueError, LookupError) as error:
            answer.failure = f"the stream broke: {error!r}"

    def _log(self, workload: str, answer: Answer) -> None:
        """Add to Locust's statistics, which workers send to their master.

        Entries are logged, no request is fired: the totals are those of the requests alone.
        """
        acceptance = answer.acceptance
        figures = {
            "TTFT": answer.ttft_ms,
            "TPOT": answer.tpot_ms,
            "tokens/s": answer.tokens_per_s,
            "acceptance %": None if acceptance is None else acceptance * 100,
        }
        stats = self.environment.stats
        for name, value in figures.items():
            if value is not None:
                stats.get(f"{workload} {name}", answer.lane).log(value, 0)
        gaps = stats.get(f"{workload} inter-chunk", answer.lane)
        for gap in answer.gaps:
            gaps.log(gap, 0)


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]
