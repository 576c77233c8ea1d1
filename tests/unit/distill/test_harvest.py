from __future__ import annotations

from email.message import Message
from pathlib import Path
from types import SimpleNamespace

import pytest

from rayspec.distill.harvest import harvest, licence_of

COPYRIGHT = "Format: 1.0\n\nFiles: *\nLicense: {}\n text\n"
PROSE = "This program does one thing and does it well. It reads what it is given and says so. " * 5


@pytest.mark.parametrize(
    ("fields", "licence"),
    [
        ([("License-Expression", "Apache-2.0 OR BSD-3-Clause")], "Apache-2.0 OR BSD-3-Clause"),
        ([("License", "MIT License\n\nCopyright (c) someone")], "MIT License"),
        ([("Classifier", "License :: OSI Approved :: BSD License")], "BSD License"),
        ([("License", "GPLv2")], None),
        ([("License-Expression", "MIT AND LGPL-2.1-only")], None),
        ([("License", "NVIDIA Proprietary Software")], None),
        ([], None),
    ],
)
def test_licences(fields: list[tuple[str, str]], licence: str | None) -> None:
    about = Message()
    for name, value in fields:
        about[name] = value if "\n" not in value else value.replace("\n", "\n ")
    assert licence_of(SimpleNamespace(metadata=about)) == licence


def test_what_this_installation_carries(tmp_path: Path) -> None:
    for name, licence in (("free", "Expat"), ("other", "GPL-3+")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "README").write_text(PROSE.replace("program", name))
        (tmp_path / name / "copyright").write_text(COPYRIGHT.format(licence))
    found = harvest(seed=1, files=60, debian=tmp_path)
    assert found.functions == harvest(seed=1, files=60, debian=tmp_path).functions
    assert len(found.functions) > 20
    for function in found.functions:
        assert function.name in function.source
        assert function.summary.isascii()
        assert len(function.source.splitlines()) < 40
    licences = found.describe()["licences"]
    assert "Debian's free" in licences["Expat"]
    assert not any("GPL" in name for name in licences)
    prose = "\n".join(found.prose)
    assert "This free does one thing" in prose
    assert "This other does one thing" not in prose
    assert "rayspec" not in found.packages
