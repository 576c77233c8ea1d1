"""The options of the load test on the command line and in the environment."""

from __future__ import annotations

from argparse import Namespace

import pytest
from locust.argument_parser import get_empty_argument_parser

from load_tests.traffic.options import add_options, limits_of, shown, slo_of
from load_tests.traffic.tally import Slo
from load_tests.workloads import PROFILES, Limits, parse_mix


def parse(*arguments: str) -> Namespace:
    parser = get_empty_argument_parser(add_help=False, default_config_files=[])
    add_options(parser)
    options: Namespace = parser.parse_args(list(arguments))
    return options


def test_defaults() -> None:
    options = parse()
    assert options.shape == "staircase"
    assert options.steps == "1,2,4,8,16,32,64"
    assert parse_mix(options.mix, PROFILES).keys() == PROFILES.keys()
    assert not slo_of(options)
    assert limits_of(options, 512) == Limits(context=512)
    # A key is for the server, not for a file that is passed on.
    assert "api_key" not in shown(parse("--api-key", "secret"))


def test_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAYSPEC_LOAD_SLO_TPOT", "25")
    monkeypatch.setenv("RAYSPEC_LOAD_MIX", "code=1")
    options = parse()
    assert slo_of(options) == Slo(tpot_ms=25)
    assert options.mix == "code=1"
    assert parse("--mix", "chat").mix == "chat"


@pytest.mark.parametrize(
    ("option", "value", "told"),
    [
        ("--mix", "poems=1", "no class 'poems'"),
        ("--steps", "1,0", "greater than 0"),
        ("--steps", "1.5", "whole numbers"),
        ("--rates", "fast", "could not convert"),
        ("--step-seconds", "-1", "greater than 0"),
        ("--output-scale", "x", "greater than 0"),
        ("--shape", "stairs", "invalid choice"),
    ],
)
def test_what_is_wrong(
    option: str, value: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parse(option, value)
    assert told in capsys.readouterr().err
