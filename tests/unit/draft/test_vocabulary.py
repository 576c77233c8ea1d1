from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from rayspec.draft.vocabulary import read_token_ids
from rayspec.errors import ConfigError

IDS = [7, 3, 99, 0]


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("ids.json", lambda path: path.write_text(json.dumps(IDS))),
        ("ids.npy", lambda path: np.save(path, np.array(IDS, dtype=np.int64))),
        ("ids.pt", lambda path: torch.save(torch.tensor(IDS), path)),
        ("list.pt", lambda path: torch.save(IDS, path)),
    ],
)
def test_reads_ids_in_their_order(
    name: str, write: Callable[[Path], object], tmp_path: Path
) -> None:
    write(tmp_path / name)
    ids = read_token_ids(str(tmp_path / name), 100)
    assert ids.dtype == torch.int32
    assert ids.tolist() == IDS


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("[1, 2, 1]", "twice"),
        ("[1, 100]", r"outside of 0\.\.99"),
        ("[-1]", "outside"),
        ("[]", "one list"),
        ("[[1]]", "one list"),
        ("[1.5]", "one list"),
        ('{"a": 1}', "cannot be read"),
        ("[1, 2", "cannot be read"),
    ],
)
def test_refuses_what_is_no_list_of_ids(content: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "ids.json"
    path.write_text(content)
    with pytest.raises(ConfigError, match=says):
        read_token_ids(str(path), 100)


def test_refuses_unknown_and_missing_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="takes a"):
        read_token_ids("ids.txt", 100)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_token_ids(str(tmp_path / "none.npy"), 100)
