from __future__ import annotations

import json

import pytest

from rayspec.vllm_ext.config import ExtConfig


def test_round_trip_through_additional_config() -> None:
    config = ExtConfig(deadline_s=0.1, checksum=True, k_tiers=(0, 2, 4), tokenizer_hash="abc")
    travelled = json.loads(json.dumps(config.to_additional_config()))
    assert ExtConfig.from_additional_config(travelled) == config


@pytest.mark.parametrize("missing", [None, {}, {"other": 1}, "text"])
def test_without_our_key_it_is_disabled(missing: object) -> None:
    config = ExtConfig.from_additional_config(missing)
    assert not config.enabled
    assert config.disabled_reason


def test_an_unknown_setting_is_an_error() -> None:
    with pytest.raises(TypeError, match="typo"):
        ExtConfig.from_additional_config({"rayspec": {"typo": 1}})
