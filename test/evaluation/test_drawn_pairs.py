"""Which pairs are drawn, and what is said where there are none."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from nocsfm_ros import cli
from nocsfm_ros.data.views import ViewDataset
from nocsfm_ros.errors import ConfigError
from nocsfm_ros.evaluation.pairs import draw_pairs
from nocsfm_ros.evaluation.robustness import check_hands


class Views(ViewDataset):
    """Those of a folder with other clusters or visible shares."""

    def __init__(self, folder: Path, **columns: float) -> None:
        super().__init__(folder)
        self.columns = columns

    def column(self, name: str) -> np.ndarray:
        usual = super().column(name)
        return np.full_like(usual, self.columns[name]) if name in self.columns else usual


def test_pairs_are_the_published_sequence(views_folder: Path) -> None:
    views = ViewDataset(views_folder)
    assert draw_pairs(views, 6) == [(5, 4), (1, 0), (1, 2), (3, 5), (3, 4), (3, 4)]
    assert draw_pairs(views, 4, seed=1, limit_deg=30) == [(2, 1), (4, 5), (4, 5), (1, 0)]


def test_views_without_any_pair_are_refused(views_folder: Path) -> None:
    with pytest.raises(ConfigError, match="7 of one object up to 90 deg apart, over 80%"):
        draw_pairs(Views(views_folder, visible=0.8), 7)
    with pytest.raises(ConfigError, match="up to 10 deg"):
        draw_pairs(ViewDataset(views_folder), 7, limit_deg=10)
    single = ViewDataset(views_folder)
    single.shards = [{name: array[:1] for name, array in single.shards[0].items()}]
    with pytest.raises(ConfigError, match="pairs of 1 views"):
        draw_pairs(single, 7)


def test_views_with_and_without_hands_are_not_taken_for_each_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    imported, plain, hands = (tmp_path / name for name in ("imported", "plain", "hands"))
    for folder in (imported, plain, hands):
        folder.mkdir()
    (plain / "render.json").write_text(json.dumps({"hands": False}), encoding="utf-8")
    (hands / "render.json").write_text(json.dumps({"hands": True}), encoding="utf-8")
    check_hands(imported, hands)
    check_hands(plain, None)
    with pytest.raises(ConfigError, match="views with hands"):
        check_hands(hands, None)
    with pytest.raises(ConfigError, match="views without hands"):
        check_hands(plain, imported)
    command = ["evaluate", "--data", str(plain), "--hands", str(plain), "--out", str(tmp_path / "out")]
    assert cli.main(command) == cli.USER_ERROR
    assert "nocsfm render --split test --hands" in capsys.readouterr().err
