from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from rayspec.vllm_ext.seeded_prefill import SeededPrefill


def test_hides_the_rows_whose_token_is_discarded() -> None:
    batch = SimpleNamespace(generators={0: "a", 2: "c"}, num_reqs=3)
    # The buffer is longer than the batch; the rest of it is stale.
    mask = np.array([True, True, False, True])
    runner = SimpleNamespace(input_batch=batch, discard_request_mask=SimpleNamespace(np=mask))
    prefill = SeededPrefill()
    generators = batch.generators
    prefill.hide(runner)
    assert generators == {2: "c"}
    prefill.restore(runner)
    assert generators == {0: "a", 2: "c"}
    prefill.restore(runner)
    assert generators == {0: "a", 2: "c"}
