from __future__ import annotations

import pytest

from load_tests.bench.options import parse
from load_tests.bench.plan import Cell, Variant
from load_tests.bench.process import visible_devices
from load_tests.shapes import SHAPES


def test_rayspec_has_one_engine_for_every_k_and_draft() -> None:
    settings = parse("", ["--k", "5", "3", "--draft-shape", "1b", "shallow", "--trace"])
    variants = settings.variants()
    assert Variant("rayspec", 5) in variants
    assert Variant("colocated", 3, "shallow") in variants
    assert len(variants) == 1 + 4 + 4 + 2 + 1
    turns = settings.turns(Variant("rayspec", 5))
    assert [(turn.system, turn.draft, turn.k) for turn in turns] == [
        ("rayspec", "1b", 3),
        ("rayspec", "1b", 5),
        ("rayspec", "shallow", 3),
        ("rayspec", "shallow", 5),
        ("verify-only", "", 3),
        ("verify-only", "", 5),
    ]


def test_colocated_drafts_may_have_a_k_of_their_own() -> None:
    settings = parse("", ["--k", "3", "5", "--colocated-k", "2"])
    ks = {(variant.system, variant.k) for variant in settings.variants()}
    assert {k for system, k in ks if system == "colocated"} == {2}
    assert {k for system, k in ks if system == "ngram"} == {3, 5}


def test_plain_knows_no_acceptance() -> None:
    settings = parse("", ["--batch", "1", "--temperature", "0", "1", "--acceptance", "2", "3"])
    (plain,) = settings.turns(Variant("plain"))
    assert settings.cells(plain) == [Cell(1, 0.0, 0.0), Cell(1, 0.0, 1.0)]
    (ours,) = settings.turns(Variant("rayspec", 5))
    assert len(settings.cells(ours)) == 4


@pytest.mark.parametrize(
    ("arguments", "shares", "link", "gpus"),
    [
        (["--draft-device", "cuda:1"], False, False, 2),
        (["--draft-device", "cuda:0"], True, True, 1),
        (["--tp", "2", "--draft-device", "cuda:1"], True, False, 2),
    ],
)
def test_who_shares_a_gpu(arguments: list[str], shares: bool, link: bool, gpus: int) -> None:
    settings = parse("", arguments)
    assert (settings.shares_gpu, settings.same_gpu_link) == (shares, link)
    assert settings.gpus("rayspec") == gpus
    assert settings.gpus("plain") == settings.tp


def test_plain_may_run_on_the_drafts_gpu() -> None:
    settings = parse("", ["--plain-devices", "1"])
    assert settings.apart == {"plain": (1,)}
    assert [settings.devices(name) for name in ("plain", "rayspec")] == [(1,), (0,)]
    assert (settings.gpus("plain"), settings.gpus("rayspec")) == (1, 2)
    assert not parse("", []).apart


def test_every_system_may_have_gpus_of_its_own() -> None:
    four = ["--tp", "2", "--draft-device", "cuda:2", "--plain-devices", "2", "3"]
    settings = parse("", [*four, "--colocated-devices", "0", "1"])
    assert settings.apart == {"plain": (2, 3)}
    assert settings.devices("colocated") == settings.devices("rayspec") == (0, 1)
    assert (settings.gpus("plain"), settings.gpus("rayspec")) == (2, 3)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--tp", "2", "--plain-devices", "1"],
        ["--ngram-devices", "1", "2"],
        ["--tiny"],
        ["--device", "cpu"],
        ["--acceptance", "real", "2"],
        ["--acceptance", "7"],
        ["--draft-shape", "huge"],
    ],
)
def test_nonsense_is_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse("", arguments)
    assert "error:" in capsys.readouterr().err


def test_a_child_sees_its_share_of_our_gpus() -> None:
    assert visible_devices([1], {}) == "1"
    assert visible_devices([1], {"CUDA_VISIBLE_DEVICES": "4,6"}) == "6"


def test_shapes_weigh_what_their_models_weigh() -> None:
    billions = {name: round(shape.parameters() / 1e9, 1) for name, shape in SHAPES.items()}
    assert billions == {
        "8b": 8.0,
        "32b": 32.5,
        "70b": 70.6,
        "1b": 1.2,
        "smollm": 0.2,
        "shallow": 0.2,
        "tiny": 0.0,
    }
