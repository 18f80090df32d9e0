"""Settings: defaults inside their ranges, bad ones refused all at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from nocsfm_ros.config import Config, flatten, iterate_tunables, load_config, replace_values
from nocsfm_ros.errors import ConfigError


def test_every_default_lies_in_its_range_and_has_a_reason() -> None:
    keys = []
    for key, value, tunable in iterate_tunables(Config()):
        replace_values(Config(), {key: value})
        assert len(tunable.reason) > 10, key
        keys.append(key)
    assert len(keys) == len(set(keys)) > 20


def test_replace_values_with_several_bad_keys_names_them_all() -> None:
    with pytest.raises(ConfigError) as caught:
        replace_values(Config(), {"model.device": "tpu", "no.such": 1, "matching.crop_margin": 99.0})
    message = str(caught.value)
    assert "model.device='tpu'" in message and "one of auto, cpu, cuda" in message
    assert "no.such (unknown)" in message
    assert "matching.crop_margin=99.0 (1 to 4)" in message


def test_replace_values_with_int_for_float_converts_and_bool_for_int_is_refused() -> None:
    assert replace_values(Config(), {"matching.crop_margin": 2}).matching.crop_margin == 2.0
    with pytest.raises(ConfigError, match="needs int"):
        replace_values(Config(), {"tracking.lost_after": True})


def test_load_config_reads_nested_yaml_and_keeps_other_defaults(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("tracking:\n  lost_after: 9\n")
    config = load_config(path)
    assert config.tracking.lost_after == 9
    assert config.matching == Config().matching


@pytest.mark.parametrize("text", ["- a list", "tracking: [1", "tracking: {lost_after: soon}"])
def test_load_config_with_a_bad_file_raises_config_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError):
        load_config(path)


def test_load_config_without_a_file_raises_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="none.yaml"):
        load_config(tmp_path / "none.yaml")


def test_flatten_joins_nested_keys_with_dots() -> None:
    assert flatten({"a": {"b": 1, "c": {"d": 2}}}) == {"a.b": 1, "a.c.d": 2}
