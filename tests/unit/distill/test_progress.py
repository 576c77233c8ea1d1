from __future__ import annotations

import re

from rayspec.distill.progress import Counted


def test_the_time_before_the_first_answers_is_not_theirs() -> None:
    said: list[str] = []
    counted = Counted(said.append)
    counted(10, 1000)
    counted(20, 3000)

    assert said[0] == "answers: 10 texts, 0.00M tokens"
    assert re.fullmatch(r"answers: 30 texts, 0\.00M tokens, \d+ tokens/s", said[1])
