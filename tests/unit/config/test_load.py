"""Configuration from files."""

from __future__ import annotations

from pathlib import Path

import pytest

from rayspec.config import load
from rayspec.errors import ConfigError

SERVE = """
applications:
  - name: other
    import_path: other:app
  - name: first
    import_path: rayspec.app:build
    args: {model: one, plain: {}}
"""
SECOND = """
  - name: second
    import_path: rayspec.app:build
    args: {model: two, plain: {}}
"""


def write(folder: Path, text: str) -> Path:
    """Return a file that holds `text`."""
    file = folder / "app.yaml"
    file.write_text(text)
    return file


def test_serve_yaml(tmp_path: Path) -> None:
    assert load(write(tmp_path, SERVE)).model == "one"


def test_bare_arguments(tmp_path: Path) -> None:
    assert load(write(tmp_path, "model: bare\nplain: {}\n")).model == "bare"


def test_one_of_several_applications(tmp_path: Path) -> None:
    file = write(tmp_path, SERVE + SECOND)
    assert load(file, application="second").model == "two"
    with pytest.raises(ConfigError, match=r"'first, second': choose one by its name"):
        load(file)
    with pytest.raises(ConfigError, match=r"no application named 'third'"):
        load(file, application="third")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "is not valid YAML"),
        ("- 1", "must hold a mapping"),
        ("applications: 3", "applications = 3: must be a list"),
        ("applications: []", "has no application with import_path rayspec.app:build"),
        (
            "applications: [{import_path: 'rayspec.app:build', args: 3}]",
            "args = 3: must be a mapping",
        ),
        ("applications: [{import_path: 'rayspec.app:build'}]", "model = (missing)"),
    ],
)
def test_wrong_files_are_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(write(tmp_path, text))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_absent_and_binary_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        load(tmp_path / "no.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="is not valid YAML"):
        load(tmp_path / "binary.yaml")
