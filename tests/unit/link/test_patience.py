from __future__ import annotations

import pytest

from rayspec.link.patience import MOST_SKIPPED, Patience

# How a step's reply comes: in time (+), after its deadline but before the next step (l), never (-).
WAITED_IN_VAIN, GOT, SKIPPED = "M", "g", "s"


def run(patience: Patience, replies: str) -> str:
    """Return what became of each step."""
    seen, caught_up = "", True
    for reply in replies:
        waits = patience.waits(caught_up=caught_up)
        in_time = reply == "+" and waits
        patience.learn(in_time=in_time)
        assert patience.lagging == (not in_time)
        seen += GOT if in_time else WAITED_IN_VAIN if waits else SKIPPED
        caught_up = reply != "-"
    return seen


@pytest.mark.parametrize(
    ("replies", "expected"),
    [
        pytest.param("+++", "ggg", id="quick"),
        pytest.param("++-++++", "ggMsggg", id="one hiccup"),
        pytest.param("++l++++", "ggMgggg", id="one late reply"),
        pytest.param("-" * 17, "MsMssMssssMssssss", id="dead slow"),
        pytest.param("l" * 17, "MMssMssssMsssssss", id="late every time"),
        pytest.param("-+" * 7, "MsMsMssssgMsMs", id="alternating"),
        pytest.param("-" * 7 + "++++", "MsMssMssggg", id="a stall"),
        pytest.param("l+" * 4, "MgMgMgMg", id="every other one late"),
    ],
)
def test_who_waits(replies: str, expected: str) -> None:
    assert run(Patience(), replies) == expected


@pytest.mark.parametrize("reply", "-l")
def test_a_draft_that_is_always_too_slow_is_nearly_free(reply: str) -> None:
    patience = Patience()
    run(patience, reply * 1000)
    seen = run(patience, reply * 10 * (MOST_SKIPPED + 1))
    assert seen.count(WAITED_IN_VAIN) == 10


def test_after_a_long_stall_the_draft_is_back_once_it_caught_up() -> None:
    assert run(Patience(), "-" * 2000 + "l++++")[2000:] == "sgggg"


def test_the_penalty_comes_down_step_by_step() -> None:
    # Penalties up to 32; eight replies in time bring them down to one step.
    assert run(Patience(), "-" * 40 + "l" + "+" * 8 + "---")[40:] == "s" + "g" * 8 + "MsM"
