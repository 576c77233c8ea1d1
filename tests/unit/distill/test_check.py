from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from rayspec.cli.main import app
from rayspec.config import DraftSpec
from rayspec.distill import student
from rayspec.distill.acceptance import ClassAcceptance
from rayspec.distill.check import facts
from rayspec.distill.presets import Preset
from rayspec.distill.speed import StepSeconds, best_gain, calibrated, timed
from rayspec.draft.deployment import start_server
from rayspec.draft.identity import model_hash
from rayspec.draft.manifest import NAME, Acceptance, Binding, DraftManifest
from rayspec.errors import ConfigError
from rayspec.planning.calibration import Calibration, LaneProfile, PrefillFit, Step
from rayspec.routing.types import Lane
from tests.support.distilling import build_target

CPU = torch.device("cpu")


def bind(draft: Path, target: Path, greedy: float = 0.0) -> None:
    found = ClassAcceptance(1, 10, greedy, [greedy], 1 + greedy, None).as_dict()
    DraftManifest(
        created="2026-01-01T00:00:00+00:00",
        rayspec="0",
        target=Binding.of(target, "tiny"),
        k=4,
        acceptance={"all": Acceptance(**found)},
        data={},
        training={},
    ).save(draft)


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    target, draft = build_target(tmp_path / "target"), tmp_path / "draft"
    draft.mkdir()
    student.write(student.build(target, Preset(32, 1, 64, 1, 1, 16)), target, draft)
    bind(draft, target)
    return draft, target


def verdicts(draft: Path, target: Path, *, other_weights: bool = False) -> dict[str, str]:
    found = facts(draft, target, CPU, other_weights=other_weights)
    return {finding.what: finding.verdict for finding in found}


def test_a_pair_that_fits(pair: tuple[Path, Path]) -> None:
    assert set(verdicts(*pair).values()) == {"ok"}
    assert set(verdicts(*pair)) == {"binding", "vocabulary", "length", "memory"}


def test_other_weights(pair: tuple[Path, Path], tmp_path: Path) -> None:
    other = build_target(tmp_path / "other", seed=1)
    assert model_hash(other) != model_hash(pair[1])
    assert verdicts(pair[0], other)["binding"] == "mismatch"
    assert verdicts(pair[0], other, other_weights=True)["binding"] == "warning"


def test_a_draft_for_other_weights_does_not_start(pair: tuple[Path, Path], tmp_path: Path) -> None:
    draft, target = pair
    other = build_target(tmp_path / "other", seed=1)
    spec = DraftSpec(
        kind="model",
        target_model=str(other),
        k_max=2,
        k_tiers=(0, 2),
        targets=1,
        target_slots=2,
        slots=2,
        max_len=None,
        device="cpu",
        num_gpus=0,
        num_cpus=0,
        model=str(draft),
    )
    with pytest.raises(ConfigError, match=r"these are .*other_weights.*distil one for") as why:
        start_server(spec)
    assert str(why.value).startswith("draft.model = ")
    assert "\n" not in str(why.value)
    for fitting in (replace(spec, other_weights=True), replace(spec, target_model=str(target))):
        server = start_server(fitting)
        try:
            assert server.healthy()
        finally:
            server.close()


def test_another_tokenizer(pair: tuple[Path, Path]) -> None:
    file = pair[1] / "tokenizer.json"
    content = json.loads(file.read_text())
    content["model"]["merges"].reverse()
    file.write_text(json.dumps(content))
    found = verdicts(*pair, other_weights=True)
    assert (found["binding"], found["vocabulary"]) == ("mismatch", "mismatch")


def test_a_draft_without_a_binding(pair: tuple[Path, Path]) -> None:
    (pair[0] / NAME).unlink()
    assert verdicts(*pair)["binding"] == "warning"
    # The list of files of a cached model is no binding either.
    (pair[0] / NAME).write_text('{"format": 1, "source": "hub", "files": {}}')
    assert DraftManifest.load(pair[0]) is None
    (pair[0] / NAME).write_text('{"kind": "draft", "k": 0}')
    with pytest.raises(ConfigError, match="created: Field required"):
        DraftManifest.load(pair[0])


def test_a_short_draft_and_little_memory(
    pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = json.loads((pair[0] / "config.json").read_text())
    (pair[0] / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 64}))
    monkeypatch.setattr("rayspec.distill.check.machine_memory", lambda: (10**9, 10**4))
    found = verdicts(*pair)
    assert (found["length"], found["memory"]) == ("warning", "mismatch")


def test_gains() -> None:
    steps = StepSeconds(10.0, (12.0, 14.0, 16.0, 18.0), "test")
    always = best_gain(1.0, steps)
    assert always.k == 4
    assert always.speedup == pytest.approx(5 * 10 / 18)
    half = best_gain([0.5], steps)
    assert half.k == 1
    assert half.speedup == pytest.approx(1.5 * 10 / 12)
    assert best_gain(0.05, steps).k == 0
    assert best_gain(0.05, steps).speedup == 1.0


def profile(seconds: dict[int, float]) -> LaneProfile:
    return LaneProfile(
        steps=[Step(batch=1, k=k, context=256, seconds=each) for k, each in seconds.items()],
        prefill=PrefillFit(base_s=0, per_token_s=1e-4),
        max_num_seqs=8,
    )


def test_step_times_of_a_calibration() -> None:
    lanes = {Lane.PLAIN: profile({0: 0.01}), Lane.SPECULATIVE: profile({0: 0.011, 4: 0.019})}
    calibration = Calibration(created="", model="m", k_tiers=[0, 4], lanes=lanes)
    steps = calibrated(calibration, 4)
    assert steps.plain == pytest.approx(0.01)
    assert steps.speculative == pytest.approx((0.013, 0.015, 0.017, 0.019))
    alone = Calibration(created="", model="m", k_tiers=[0], lanes={Lane.PLAIN: profile({0: 0.01})})
    with pytest.raises(ConfigError, match="speculative lane"):
        calibrated(alone, 4)


def test_timed_steps(pair: tuple[Path, Path]) -> None:
    draft, target = (student.load(folder, torch.float32, CPU) for folder in pair)
    steps = timed(target, draft, 3, rounds=3)
    assert len(steps.speculative) == 3
    assert min(steps.plain, *steps.speculative) > 0


def check(draft: Path, target: Path, *arguments: str) -> tuple[int, str]:
    found = CliRunner().invoke(
        app, ["draft", "check", str(draft), str(target), "-q", "--tokens", "8", *arguments]
    )
    return found.exit_code, found.output


def test_command(pair: tuple[Path, Path], tmp_path: Path) -> None:
    bind(*pair, greedy=1.0)  # better than it can be
    prompts, out = tmp_path / "prompts.jsonl", tmp_path / "check.json"
    rows = [{"class": name, "prompt": f"word{i}"} for name in ("code", "legal") for i in range(3)]
    prompts.write_text("\n".join(map(json.dumps, rows)))
    code, output = check(*pair, "--prompts", str(prompts), "--each", "2", "--json", str(out))
    assert code == 0, output
    report = json.loads(out.read_text())
    assert report["passed"]
    assert list(report["classes"]) == ["code", "legal", "all"]
    assert report["classes"]["all"]["acceptance"]["texts"] == 8
    assert 0 <= report["classes"]["all"]["acceptance"]["sampled"] <= 1
    assert report["classes"]["all"]["recorded"] == 1.0
    warned = [each for each in report["findings"] if each["verdict"] == "warning"]
    assert [each["what"] for each in warned] == ["acceptance"]
    for word in ("legal", "recorded", "100.0%", "ms without drafts"):
        assert word in output


def test_command_refuses_a_pair(pair: tuple[Path, Path], tmp_path: Path) -> None:
    other = build_target(tmp_path / "other", seed=1)
    out = tmp_path / "check.json"
    code, output = check(pair[0], other, "--json", str(out))
    assert code == 1
    assert "mismatch  binding" in output
    assert "--other-weights" in output
    report = json.loads(out.read_text())
    assert not report["passed"]
    assert report["classes"] is None
