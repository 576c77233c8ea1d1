"""Recorded traffic in the formats that exist, and one line for what is wrong with a file."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from rayspec.errors import ConfigError
from rayspec.planning.trace_files import read_trace

JSONL = """\
{"arrival_s": 12.5, "prompt_tokens": 10, "output_tokens": 20, "workload_class": "code"}

{"arrival_s": 10.5, "prompt_tokens": 30, "output_tokens": 40, "workload_class": "chat"}
"""
AZURE = """\
TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:15:46.6805900,374,44
2023-11-16 18:15:50.9951690,396,109
"""
AZURE_2024 = """\
TIMESTAMP,ContextTokens,GeneratedTokens
2024-05-10 00:00:00.009930+00:00,2162,5
2024-05-10 00:00:01.009930+00:00,2399,6
"""
BURST = """\
Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type
5,ChatGPT,472,18,490,Conversation log
45,ChatGPT,1087,0,1087,Conversation log
118,GPT-4,417,276,693,API log
"""


def write(folder: Path, name: str, text: str) -> Path:
    file = folder / name
    file.write_text(text)
    return file


def test_jsonl_is_sorted_and_starts_at_0(tmp_path: Path) -> None:
    trace = read_trace(write(tmp_path, "t.jsonl", JSONL))
    assert trace.arrivals.tolist() == [0.0, 2.0]
    assert trace.prompt_tokens.tolist() == [30, 10]
    assert trace.output_tokens.tolist() == [40, 20]
    assert [trace.classes[i] for i in trace.class_of] == ["chat", "code"]


@pytest.mark.parametrize(
    ("text", "arrival", "prompts"),
    [(AZURE, 4.314579, [374, 396]), (AZURE_2024, 1.0, [2162, 2399]), (BURST, 113.0, [472, 417])],
)
def test_published_formats(tmp_path: Path, text: str, arrival: float, prompts: list[int]) -> None:
    trace = read_trace(write(tmp_path, "t.csv", text), "code")
    assert trace.arrivals.tolist() == pytest.approx([0.0, arrival], abs=2e-6)
    assert trace.prompt_tokens.tolist() == prompts
    assert trace.classes == ("code",)


def test_requests_without_an_answer_are_left_out_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        read_trace(write(tmp_path, "t.csv", BURST), "code")
    assert "1 requests without prompt or answer" in caplog.text


def test_only_so_many(tmp_path: Path) -> None:
    assert len(read_trace(write(tmp_path, "t.jsonl", JSONL), limit=1)) == 1


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("t.csv", AZURE, "names no workload class; give one with --class"),
        ("t.jsonl", "{}", "names no workload class"),
        ("t.jsonl", '{"class": "a"}', "has none of arrival_s"),
        ("t.jsonl", '{"class": "a", "time": "soon", "prompt_tokens": 1}', "soon"),
        ("t.jsonl", '{"class": "a", "time": "nan"}', "is not a time"),
        ("t.jsonl", "no json", "t.jsonl:1"),
        ("t.jsonl", "", "has no request"),
        ("t.csv", "TIMESTAMP,ContextTokens,GeneratedTokens,class\n1,x,3,a\n", "'x'"),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        read_trace(write(tmp_path, name, text))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_trace(tmp_path / "nowhere.csv")
