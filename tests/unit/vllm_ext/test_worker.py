"""The worker mixin and the proposer on a fake runner: nothing we do may raise into vLLM."""

from __future__ import annotations

from dataclasses import asdict
from types import SimpleNamespace
from typing import Any

import pytest

from rayspec.link.spec import LinkState
from rayspec.link.ticket import Ticket
from rayspec.vllm_ext.config import STEP_K_ATTRIBUTE, ExtConfig
from rayspec.vllm_ext.guard import Guard
from rayspec.vllm_ext.proposer import RemoteProposer, RunnerTokens
from rayspec.vllm_ext.worker import RayspecWorker


class Base:
    """The part of a vLLM worker that the mixin touches."""

    def __init__(self, additional_config: dict[str, Any]) -> None:
        self.vllm_config = SimpleNamespace(
            additional_config=additional_config, speculative_config=None
        )
        self.calls: list[str] = []
        self.model_runner = SimpleNamespace()

    def init_device(self) -> None:
        self.calls.append("init_device")

    def execute_model(self, scheduler_output: Any) -> str:
        self.calls.append("execute_model")
        return "executed"

    def sample_tokens(self, grammar_output: Any) -> Any:
        return SimpleNamespace(req_ids=[])

    def determine_available_memory(self) -> int:
        self.execute_model("dummy")
        return 7

    def compile_or_warm_up_model(self) -> str:
        self.execute_model("dummy")
        return "warm"

    def shutdown(self) -> None:
        self.calls.append("shutdown")


class Worker(RayspecWorker, Base):
    pass


class Carrier:
    def __init__(self) -> None:
        self.seen: list[str] = []
        self.fail = False
        self.warm = False

    def _see(self, name: str) -> None:
        self.seen.append(name)
        if self.fail:
            raise RuntimeError(name)

    def before_execute(self, scheduler_output: Any) -> None:
        self._see("before")

    def after_execute(self, scheduler_output: Any) -> None:
        self._see("after")

    def after_sample(self, output: Any) -> None:
        self._see("sample")

    def warm_up(self) -> None:
        self.warm = True


class Session:
    def __init__(self) -> None:
        self.invalidated = 0

    def invalidate(self) -> None:
        self.invalidated += 1


@pytest.fixture
def worker() -> Worker:
    worker = Worker(ExtConfig().to_additional_config())
    worker.init_device()
    return worker


def test_hooks_surround_the_step(worker: Worker) -> None:
    carrier = worker._carrier = Carrier()
    assert worker.execute_model("step") == "executed"
    worker.sample_tokens(None)
    assert carrier.seen == ["before", "after", "sample"]


def test_dummy_steps_are_not_seen(worker: Worker) -> None:
    carrier = worker._carrier = Carrier()
    assert worker.determine_available_memory() == 7
    assert worker.compile_or_warm_up_model() == "warm"
    assert carrier.seen == []
    assert carrier.warm
    worker.execute_model("step")
    assert carrier.seen == ["before", "after"]


def test_an_error_stays_inside_and_asks_for_a_resync(worker: Worker) -> None:
    carrier = worker._carrier = Carrier()
    session: Any = Session()
    worker._sessions = [session]
    carrier.fail = True
    assert worker.execute_model("step") == "executed"
    assert worker.sample_tokens(None).req_ids == []
    assert worker._guard.errors == {
        "before_execute:RuntimeError": 1,
        "after_execute:RuntimeError": 1,
        "after_sample:RuntimeError": 1,
    }
    assert session.invalidated == 3


def test_k_goes_out_with_the_output(worker: Worker) -> None:
    worker._carrier = Carrier()
    worker.rayspec_set_k(2)
    assert getattr(worker.sample_tokens(None), STEP_K_ATTRIBUTE) == 2
    worker.rayspec_set_k(None)
    assert getattr(worker.sample_tokens(None), STEP_K_ATTRIBUTE) is None


def test_a_runner_that_pays_for_fillers_rests_while_detached(worker: Worker) -> None:
    worker._carrier = Carrier()
    worker._rests_detached = True
    worker.rayspec_set_k(2)
    link: Any = SimpleNamespace(state=LinkState.ATTACHING)
    worker._links = [link]
    assert getattr(worker.sample_tokens(None), STEP_K_ATTRIBUTE) == 0
    link.state = LinkState.READY
    assert getattr(worker.sample_tokens(None), STEP_K_ATTRIBUTE) == 2


def test_a_shard_is_attached_by_its_number(worker: Worker) -> None:
    tickets: list[tuple[int, Any]] = []
    links = [SimpleNamespace(attach=lambda t, i=i: tickets.append((i, t))) for i in range(2)]
    worker._links = links  # type: ignore[assignment]
    ticket = Ticket("host", 1, 2, "id", 3)
    assert worker.rayspec_attach(asdict(ticket), 1)
    assert worker.rayspec_attach(ticket)
    assert not worker.rayspec_attach(ticket, 2)
    assert tickets == [(1, ticket), (0, ticket)]


def test_k_is_one_of_the_declared_widths() -> None:
    worker = Worker(ExtConfig(k_tiers=(0, 2, 4)).to_additional_config())
    worker.init_device()
    worker._carrier = Carrier()
    for wanted, got in ((0, 0), (1, 0), (3, 2), (9, 4), (-1, 0)):
        worker.rayspec_set_k(wanted)
        assert getattr(worker.sample_tokens(None), STEP_K_ATTRIBUTE) == got


def test_disabled_says_why_and_has_no_link() -> None:
    config = ExtConfig(enabled=False, disabled_reason="vLLM 9.9: no hook")
    worker = Worker(config.to_additional_config())
    worker.init_device()
    status = worker.rayspec_status()
    assert status["state"] == "disabled"
    assert status["disabled_reason"] == "vLLM 9.9: no hook"
    assert worker.rayspec_attach({}) is False
    worker.shutdown()
    assert worker.calls == ["init_device", "shutdown"]


def test_proposer_survives_its_session() -> None:
    config = SimpleNamespace(
        speculative_config=SimpleNamespace(num_speculative_tokens=2),
        scheduler_config=SimpleNamespace(max_num_seqs=2),
    )
    proposer = RemoteProposer(config)
    # Not bound, as on all ranks but the first.
    assert proposer.propose([[1], []], None, None) == [[], []]
    request = SimpleNamespace(sampling_params=None)
    requests = {"a": request, "b": request}
    runner = SimpleNamespace(input_batch=SimpleNamespace(req_ids=["a", "b"]), requests=requests)
    session: Any = Session()  # has no `step`: every proposal fails
    guard = Guard()
    proposer.bind(runner, RunnerTokens(runner), [session], guard)
    assert proposer.propose([[1], []], None, None) == [[], []]
    assert guard.errors == {"propose:AttributeError": 1}
    assert session.invalidated == 1
