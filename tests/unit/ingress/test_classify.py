from __future__ import annotations

import copy
import json
import time
from collections import Counter
from statistics import fmean
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from load_tests.bench_classify import confusion
from rayspec.errors import BadRequest
from rayspec.ingress.classify import BUILTIN_CLASSES, Classification, ClassRule, classify
from rayspec.ingress.text import excerpt
from rayspec.ingress.words import Text
from tests.support.classified import TOOL, Body, chat, labelled, prompt, turns
from tests.support.properties import quick


def test_the_labelled_set_has_every_class_in_both_splits() -> None:
    requests = [*labelled("dev"), *labelled("test")]

    assert len(requests) >= 300
    assert len({each.id for each in requests}) == len(requests)
    for split in ("dev", "test"):
        counts = Counter(each.label for each in labelled(split))
        assert set(counts) == set(BUILTIN_CLASSES)
        assert min(counts.values()) >= 20


def test_requests_that_nobody_tuned_for_get_their_class() -> None:
    # Accuracy 0.867 and macro F1 0.878 when `test` was written and scored; 0.492 and 0.536 with the
    # word lists that came before any labelled set.
    found = confusion(labelled("test"))

    assert found.accuracy >= 0.85
    assert fmean(found.scores(name).f1 for name in BUILTIN_CLASSES) >= 0.86


def test_requests_that_the_word_lists_were_made_with_keep_their_class() -> None:
    assert confusion(labelled("dev")).accuracy >= 0.97


def test_a_named_class_is_nearly_always_right() -> None:
    # In doubt a request is chat: what is not chat should be what it is called.
    found = confusion([*labelled("dev"), *labelled("test")])

    assert all(found.scores(name).precision >= 0.95 for name in BUILTIN_CLASSES if name != "chat")


def test_no_request_is_in_both_splits() -> None:
    dev, test = ({json.dumps(each.request) for each in labelled(s)} for s in ("dev", "test"))

    assert not dev & test


@pytest.mark.parametrize(
    "text",
    [
        "x" * 5_000_000,
        " " * 2_000_000,
        "\n" * 2_000_000,
        "a.a(" * 500_000,
        "SELECT " * 500_000,
        "{;" * 500_000,
        "漢" * 1_000_000,
        "from a import " * 100_000,
        "`" * 1_000_000,
    ],
    ids=lambda text: ascii(text[:14]),
)
def test_a_huge_prompt_costs_no_more_than_its_beginning_and_end(text: str) -> None:
    costs = []
    for _ in range(3):
        started = time.perf_counter()
        classify(prompt(text), {})
        costs.append(time.perf_counter() - started)

    assert min(costs) < 5e-3


@pytest.mark.parametrize("size", [1_000, 100_000, 5_000_000])
def test_what_is_looked_at_does_not_grow_with_the_prompt(size: int) -> None:
    words = "word " * (size // 5)
    body = turns(*[words] * 4)
    body["messages"].insert(0, {"role": "system", "content": words})

    seen = excerpt(body)

    assert seen.chars == 5 * len(words)
    texts = (seen.system, seen.request, seen.previous, seen.opening)
    assert all(0 < len(text) < 900 for text in texts)
    assert len(Text.of(seen.request).words) <= 128


def test_classifying_changes_nothing_and_always_says_the_same() -> None:
    for each in labelled("test"):
        before = copy.deepcopy(each.request)
        first = classify(each.request, {})

        assert classify(each.request, {}) == first
        assert each.request == before
        assert first.why


def test_a_long_conversation_is_bounded_too() -> None:
    body = turns(*["some words of a conversation"] * 20_001)
    costs = []
    for _ in range(3):
        started = time.perf_counter()
        assert classify(body, {}).name == "chat"
        costs.append(time.perf_counter() - started)

    assert min(costs) < 5e-3


@pytest.mark.parametrize(
    ("body", "headers", "expected"),
    [
        (chat("hi"), {"x-workload-class": "mine"}, Classification("mine", "x-workload-class")),
        (
            chat("hi", metadata={"workload_class": "theirs"}),
            {},
            Classification("theirs", "metadata.workload_class"),
        ),
        (
            chat("hi", metadata={"workload_class": "theirs"}),
            {"x-workload-class": "mine"},
            Classification("mine", "x-workload-class"),
        ),
    ],
)
def test_what_the_request_says_goes_first(
    body: Body, headers: dict[str, str], expected: Classification
) -> None:
    rule = ClassRule("ruled", prompt_pattern=".")

    assert classify(body, headers, [rule]) == expected


@pytest.mark.parametrize("name", ["", "Mine", "a b", "x" * 33, "día", "a\r\nx: y"])
def test_a_bad_class_name_is_refused_naming_where_it_came_from(name: str) -> None:
    with pytest.raises(BadRequest) as in_header:
        classify(chat("hi"), {"x-workload-class": name})
    with pytest.raises(BadRequest) as in_body:
        classify(chat("hi", metadata={"workload_class": name}), {})

    assert in_header.value.param == "x-workload-class"
    assert in_body.value.param == "metadata.workload_class"
    assert "a-z, 0-9" in in_body.value.message


@pytest.mark.parametrize("name", [7, True, ["chat"], {"a": 1}])
def test_a_class_that_is_no_string_is_refused(name: Any) -> None:
    with pytest.raises(BadRequest):
        classify(chat("hi", metadata={"workload_class": name}), {})


@pytest.mark.parametrize(
    ("rule", "matches"),
    [
        (ClassRule("r", model="m"), True),
        (ClassRule("r", model="lora-*"), False),
        (ClassRule("r", header=("X-Team", "^search$")), True),
        (ClassRule("r", header=("x-team", "sales")), False),
        (ClassRule("r", header=("x-absent", ".*")), False),
        (ClassRule("r", system_pattern="you are a TRAVEL agent"), True),
        (ClassRule("r", system_pattern="lisbon"), False),
        (ClassRule("r", prompt_pattern=r"trip to \w+$"), True),
        (ClassRule("r", prompt_pattern="travel"), False),
        (ClassRule("r", min_prompt_chars=30), True),
        (ClassRule("r", min_prompt_chars=3000), False),
        (ClassRule("r", model="m", prompt_pattern="absent"), False),
        (ClassRule("r", model="m", prompt_pattern="lisbon", min_prompt_chars=5), True),
    ],
)
def test_a_rule_needs_all_of_its_conditions(rule: ClassRule, matches: bool) -> None:
    body = chat("Plan a trip to Lisbon", "You are a travel agent.")

    assert (classify(body, {"x-team": "search"}, [rule]).name == "r") is matches


def test_the_first_rule_that_matches_counts() -> None:
    rules = [
        ClassRule("a", prompt_pattern="absent"),
        ClassRule("b", model="*"),
        ClassRule("c", model="*"),
    ]

    assert classify(chat("hi"), {}, rules) == Classification("b", "rule 1")


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"workload_class": "r"}, "no condition"),
        ({"workload_class": "Bad Name", "model": "m"}, "workload_class"),
        ({"workload_class": "r", "prompt_pattern": "("}, "pattern '\\('"),
        ({"workload_class": "r", "header": ("x", "[")}, "pattern '\\['"),
    ],
)
def test_a_rule_that_cannot_work_is_refused(fields: Body, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        ClassRule(**fields)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (chat("hi", response_format={"type": "json_object"}), "response_format json_object"),
        (chat("hi", structured_outputs={"grammar": "g"}), "structured_outputs.grammar"),
        (chat("hi", tools=[TOOL]), "tools"),
        (chat("hi", tools=[TOOL], tool_choice="none"), "nothing else matched"),
        (chat("hi", response_format={"type": "text"}), "nothing else matched"),
        # Fields of older versions of vLLM, which 0.32.0 ignores.
        (chat("hi", guided_json={"type": "object"}), "nothing else matched"),
        (chat("hi", temperature=1.5), "temperature 1.5"),
        (chat("hi", temperature=True), "nothing else matched"),
        (prompt([1, 2, 3]), "nothing else matched"),
        (chat("```\nx\n```"), "code fence"),
        (chat("こんにちは"), "script"),
        (chat("translate this to French"), "translate french"),
    ],
)
def test_it_says_why(body: Body, why: str) -> None:
    assert classify(body, {}).why == why


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)
fields = st.sampled_from(
    ["messages", "prompt", "suffix", "temperature", "tools", "tool_choice", "response_format"]
) | st.sampled_from(["structured_outputs", "parallel_tool_calls", "model", "n"])
odd_messages = st.lists(
    st.dictionaries(
        st.sampled_from(["role", "content"]),
        json_values | st.sampled_from(["user", "system"]),
    ),
    max_size=3,
)


@quick
@given(st.dictionaries(fields, json_values, max_size=6), odd_messages)
def test_no_shape_of_body_is_an_error(body: Body, messages: list[Any]) -> None:
    rules = [ClassRule("r", model="x", system_pattern="a", prompt_pattern="b", min_prompt_chars=1)]
    for each in (body, {**body, "messages": messages}):
        result = classify(each, {}, rules)

        assert result.name in {*BUILTIN_CLASSES, "r"}
        assert result.why.isascii()


def test_an_absurd_temperature_is_left_to_vllm() -> None:
    assert classify(chat("hi", temperature=10**400), {}).name == "chat"
