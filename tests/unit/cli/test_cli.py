"""The command line, as a user types it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from rayspec import __version__
from rayspec.cli import main
from rayspec.config import parse_keys
from rayspec.ingress.keys import digest
from rayspec.models import cache

VALID = "model: smollm2\nplain: {}\nspeculative: {}\ndraft: {kind: ngram}\n"
Run = Callable[..., tuple[object, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs a command line and returns code, output and errors."""

    def run_(*args: str) -> tuple[object, str, str]:
        monkeypatch.setattr(sys, "argv", ["rayspec", *args])
        with pytest.raises(SystemExit) as exited:
            main()
        captured = capsys.readouterr()
        return exited.value.code, captured.out, captured.err

    return run_


def test_check_says_what_is_configured(run: Run, tmp_path: Path) -> None:
    (tmp_path / "app.yaml").write_text(VALID)
    code, out, err = run("config", "check", str(tmp_path / "app.yaml"))
    assert (code, err) == (0, "")
    assert "valid (model smollm2, lanes speculative and plain, draft ngram)" in out


def test_a_wrong_file_is_one_line_on_standard_error(run: Run, tmp_path: Path) -> None:
    (tmp_path / "app.yaml").write_text(VALID + "devise: cpu\n")
    code, out, err = run("config", "check", str(tmp_path / "app.yaml"))
    assert (code, out) == (1, "")
    assert err == "rayspec: devise = 'cpu': unknown field; did you mean 'device'?\n"


def test_wrong_usage_has_its_own_exit_code(run: Run) -> None:
    code, out, err = run("config", "chek")
    assert (code, out) == (2, "")
    assert "chek" in err


def test_schema_documents_every_section(run: Run) -> None:
    code, out, _ = run("config", "schema")
    schema = json.loads(out)
    assert code == 0
    assert schema["additionalProperties"] is False
    assert schema["properties"]["model"]["description"]
    assert {"SpeculativeLaneConfig", "RoutingConfig", "IngressConfig"} <= schema["$defs"].keys()


def test_fetch_prints_the_folder_alone(run: Run, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert run("models", "fetch", str(tmp_path)) == (0, f"{tmp_path}\n", "")


def test_fetch_for_a_configuration_takes_all_its_models(run: Run, tmp_path: Path) -> None:
    target, draft, file = tmp_path / "target", tmp_path / "draft", tmp_path / "app.yaml"
    for folder in (target, draft):
        folder.mkdir()
        (folder / "config.json").write_text("{}")
    file.write_text(f"model: {target}\nspeculative: {{}}\ndraft: {{kind: model, model: {draft}}}\n")
    assert run("models", "fetch", "--for", str(file)) == (0, f"{target}\n{draft}\n", "")


@pytest.mark.parametrize("args", [[], ["smollm2", "--for", "app.yaml"]])
def test_fetch_wants_either_a_model_or_a_configuration(run: Run, args: list[str]) -> None:
    code, _, err = run("models", "fetch", *args)
    assert code == 2
    assert "give either MODEL or --for FILE" in err


def test_fetch_of_nothing_known(run: Run) -> None:
    code, out, err = run("models", "fetch", "./nowhere")
    assert (code, out) == (1, "")
    assert err.startswith("rayspec: './nowhere' is neither a folder here nor")


def test_list_shows_what_is_fetched(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAYSPEC_CACHE", str(tmp_path))
    assert run("models", "list") == (0, "smollm2\t(not fetched)\n", "")

    def build(folder: Path) -> str:
        (folder / "config.json").write_text("{}")
        return "a test"

    folder = cache.ensure("smollm2", build)
    assert run("models", "list") == (0, f"smollm2\t{folder}\ta test\n", "")


def test_version(run: Run) -> None:
    code, out, _ = run("version")
    assert code == 0
    assert out.startswith(f"rayspec {__version__}\n")
    assert "ray 2." in out


def test_help_imports_nothing_heavy() -> None:
    script = (
        "import sys; sys.argv = ['rayspec', '--help']\n"
        "from rayspec.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'ray', 'torch', 'vllm', 'transformers', 'pydantic', 'huggingface_hub'}\n"
        "sys.exit(f'imported {heavy & set(sys.modules)}' if heavy & set(sys.modules) else 0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "config" in done.stdout


def test_a_new_key_is_printed_once_and_its_entry_lets_it_in(run: Run) -> None:
    options = ("--requests-per-minute", "60", "--concurrent-requests", "4")
    code, out, err = run("keys", "new", "team-a", *options)
    assert code == 0
    key = out.strip()
    (entry,) = yaml.safe_load(err)
    assert key not in err
    assert entry["sha256"] == digest(key).hex()
    (parsed,) = parse_keys({"api_keys": [entry]})
    assert (parsed.name, parsed.requests_per_minute, parsed.concurrent_requests) == (
        "team-a",
        60,
        4,
    )


def test_a_key_with_a_wrong_name_is_not_made(run: Run) -> None:
    code, out, err = run("keys", "new", "team a")
    assert (code, out) == (1, "")
    assert "api_keys.0.name = 'team a'" in err
