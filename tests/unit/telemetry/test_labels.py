from __future__ import annotations

from rayspec.telemetry.labels import ClassLabels


def test_names_that_clients_make_up_are_bounded() -> None:
    label = ClassLabels({"chat"})
    given = {label(f"made-up-{n}") for n in range(1000)}

    assert len(given) == 65
    assert label("made-up-0") == "made-up-0"
    assert label("made-up-999") == "other"
    assert label("chat") == "chat"
