"""Settings of a training: the files of config/train load, single options win, what cannot be is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from nocsfm_ros.cli import build_parser
from nocsfm_ros.config import iterate_tunables, replace_values
from nocsfm_ros.errors import ConfigError
from nocsfm_ros.training.config import (
    AUTOENCODER,
    BACKBONE,
    FLOW,
    TrainAllConfig,
    TrainConfig,
    changed_values,
    check_train_config,
    load_train_config,
    save_config,
)
from nocsfm_ros.training.train_command import all_config, one_config

ROOT = Path(__file__).resolve().parents[2]
HAS_DATA = {"data.train": "views"}


@pytest.mark.parametrize("name", ["train/autoencoder", "train/flow", "train/backbone", "train/comparison", "paper"])
def test_config_file_loads_and_can_be_trained(name: str) -> None:
    config = load_train_config(ROOT / "config" / f"{name}.yaml", FLOW)
    check_train_config(replace_values(config, HAS_DATA))


@pytest.mark.parametrize(("name", "defaults"), [("autoencoder", AUTOENCODER), ("flow", FLOW), ("backbone", BACKBONE)])
def test_config_file_says_the_defaults(name: str, defaults: TrainConfig) -> None:
    config = load_train_config(ROOT / "config" / "train" / f"{name}.yaml", TrainConfig())
    assert changed_values(defaults, config).keys() == {"schedule.hours"}


def test_every_default_lies_in_its_range_and_stands_in_the_docs() -> None:
    page = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    for key, value, _ in iterate_tunables(TrainConfig()):
        replace_values(TrainConfig(), {key: value})
        assert f"`{key}`" in page


def test_options_win_over_the_file() -> None:
    options = build_parser().parse_args([
        "train", "flow", "--out", "o", "--config", str(ROOT / "config/train/flow.yaml"), "--data", "d", "--hours", "3",
        "--seed", "7",
    ])
    config = one_config(options)
    assert (config.schedule.hours, config.schedule.seed, config.schedule.batch) == (3.0, 7, 16)
    assert config.data.train == "d" and config.losses.mask == 3.0


def test_options_for_all_reach_both_and_hours_are_the_clocks() -> None:
    options = build_parser().parse_args([
        "train", "all", "--out", "o", "--config", str(ROOT / "config/train/gpu.yaml"), "--data", "d", "--hours", "0.1"
    ])
    config = all_config(options)
    assert isinstance(config, TrainAllConfig) and config.hours == 0.1
    assert config.autoencoder.data.train == config.flow.data.train == "d"
    assert config.autoencoder.schedule.hours < 0.1 and config.flow.data.in_memory


def test_load_train_config_with_unknown_key_and_wrong_type_names_both(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("schedule: {batch: many}\nlosses: {depth: 1.0}\n")
    with pytest.raises(ConfigError) as caught:
        load_train_config(tmp_path / "bad.yaml", TrainConfig())
    assert "schedule.batch='many'" in str(caught.value) and "losses.depth (unknown)" in str(caught.value)
    assert "docs/training.md" in str(caught.value)


def test_check_names_everything_that_cannot_be() -> None:
    config = replace_values(TrainConfig(), {"schedule.batch": 3, "network.unet.middle": 50})
    with pytest.raises(ConfigError) as caught:
        check_train_config(config)
    for words in ("no data.train", "neither schedule.hours nor schedule.steps", "schedule.batch=3", "network.unet"):
        assert words in str(caught.value)


def test_saved_config_is_read_back(tmp_path: Path) -> None:
    config = replace_values(TrainConfig(), {"data.train": "v", "network.kind": "transformer", "losses.mask": 0.5})
    save_config(tmp_path / "c.yaml", config)
    assert load_train_config(tmp_path / "c.yaml", TrainConfig()) == config
