from __future__ import annotations

from contextlib import closing
from itertools import islice
from pathlib import Path

import pytest
import torch

from rayspec.distill import student
from rayspec.distill.presets import Preset
from rayspec.distill.score import Scores, score
from rayspec.distill.spec import LossKind
from rayspec.distill.texts import Text, Texts
from rayspec.distill.train import Training, learn, rate_at
from tests.support.distilling import build_target

CPU = torch.device("cpu")
SHAPE = Preset(32, 1, 64, 1, 1, 16)


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_target(tmp_path_factory.mktemp("target"))


@pytest.fixture(scope="module")
def texts() -> Texts:
    rng = torch.Generator().manual_seed(0)

    def some(count: int) -> list[int]:
        ids: list[int] = torch.randint(3, 320, (count,), generator=rng).tolist()
        return ids

    return Texts.of([Text(some(3), some(5 + index % 7), "chat") for index in range(60)])


@pytest.fixture(scope="module")
def scores(target: Path, texts: Texts, tmp_path_factory: pytest.TempPathFactory) -> Scores:
    model = student.load(target, torch.float32, CPU)
    folder = tmp_path_factory.mktemp("scores")
    scores: Scores = score(model, texts, 32, folder, budget=512)
    return scores


def trained(
    target: Path,
    texts: Texts,
    scores: Scores,
    training: Training,
    checkpoint: Path,
    *,
    stop: int | None = None,
    starts: float = 0.0,
) -> tuple[list[float], dict[str, torch.Tensor]]:
    """Return the losses and weights; a step takes a second of a clock that begins at `starts`."""
    model, losses = student.build(target, SHAPE), list[float]()
    with closing(
        learn(model, texts, scores, training, checkpoint, clock=lambda: starts + len(losses))
    ) as steps:
        for progress in islice(steps, stop):
            losses.append(float(progress.loss))
    return losses, model.state_dict()


@pytest.mark.parametrize("loss", ["kl", "reverse-kl", "tv"])
def test_the_loss_falls(
    target: Path, texts: Texts, scores: Scores, tmp_path: Path, loss: LossKind
) -> None:
    training = Training(batch_tokens=256, rate=1e-2, loss=loss, steps=60)
    losses, _ = trained(target, texts, scores, training, tmp_path / "c.pt")
    assert len(losses) == 60
    assert sum(losses[-10:]) < 0.75 * sum(losses[:10])


@pytest.mark.parametrize("stops", [(7,), (1, 5, 4)])
def test_stopping_and_going_on_is_the_same_as_not_stopping(
    target: Path, texts: Texts, scores: Scores, tmp_path: Path, stops: tuple[int, ...]
) -> None:
    training = Training(batch_tokens=256, rate=5e-3, steps=16)
    whole, weights = trained(target, texts, scores, training, tmp_path / "whole.pt")
    losses: list[float] = []
    for stop in (*stops, None):
        some, found = trained(target, texts, scores, training, tmp_path / "c.pt", stop=stop)
        losses += some
    assert losses == whole
    assert all(torch.equal(found[name], weight) for name, weight in weights.items())
    # What is complete stays as it is.
    again, found = trained(target, texts, scores, training, tmp_path / "c.pt")
    assert again == []
    assert all(torch.equal(found[name], weight) for name, weight in weights.items())


def test_ends_at_the_deadline(target: Path, texts: Texts, scores: Scores, tmp_path: Path) -> None:
    training = Training(batch_tokens=256, rate=5e-3, deadline=120.0)
    losses, _ = trained(target, texts, scores, training, tmp_path / "a.pt")
    assert 119 <= len(losses) <= 122
    # Before it is known how many steps there will be, a deadline ends them at once.
    soon = Training(batch_tokens=256, rate=5e-3, deadline=20.0)
    losses, _ = trained(target, texts, scores, soon, tmp_path / "b.pt")
    assert 20 <= len(losses) <= 22


def test_slow_first_steps_do_not_end_it_early(
    target: Path, texts: Texts, scores: Scores, tmp_path: Path
) -> None:
    """Kernels are chosen and memory is found in the first steps, ten times as slow as the rest."""
    training = Training(batch_tokens=256, rate=5e-3, deadline=700.0)
    taken = list[int]()

    def clock() -> float:
        return len(taken) + 9.0 * min(len(taken), 40)

    model = student.build(target, SHAPE)
    with closing(learn(model, texts, scores, training, tmp_path / "c.pt", clock=clock)) as steps:
        for progress in steps:
            taken.append(progress.step)
    assert 670 <= clock() <= 710


def test_the_number_of_steps_is_kept_over_a_stop(
    target: Path, texts: Texts, scores: Scores, tmp_path: Path
) -> None:
    training = Training(batch_tokens=256, rate=5e-3, deadline=90.0)
    file = tmp_path / "c.pt"
    some, _ = trained(target, texts, scores, training, file, stop=50)
    rest, _ = trained(target, texts, scores, training, file, starts=1e4)
    assert len(some) == 50
    assert len(some) + len(rest) == torch.load(file, weights_only=True)["total"] >= 89


def test_rate() -> None:
    rates = [rate_at(step, 100, 0.1) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9] == max(rates) == 1.0
    assert rates[99] == pytest.approx(1 / 90)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rate_at(0, None, 0.1) < rate_at(39, None, 0.1) < 0.5
    assert rate_at(0, 1, 0.02) == 1.0
