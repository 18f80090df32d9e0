"""The search head: what it makes of features, and which one is taken for which backbone."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from nocsfm_ros.errors import CheckpointError
from nocsfm_ros.matching.backbone import EFFICIENTNET, Backbone, load_backbone
from nocsfm_ros.matching.search_head import FOLDER, SearchBackbone, SearchHead, load_search_backbone


class Colours(Backbone):
    """Each 16 x 16 cell's mean colour."""

    stride = 16

    def dense_features(self, image: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.avg_pool2d(image, 16) + 1


def head_in(folder: Path, backbone: str) -> SearchHead:
    torch.manual_seed(0)
    head = SearchHead(backbone, 3, hidden_width=8, width=5)
    torch.nn.init.normal_(head.from_hidden.weight)
    head.save_pretrained(folder / FOLDER, safe_serialization=True)
    return head


def test_head_of_the_weights_folder_is_taken_for_its_backbone(tmp_path: Path) -> None:
    head = head_in(tmp_path, "colours")
    backbone = load_search_backbone("colours", Colours("cpu"), tmp_path, "cpu")
    rgb = np.random.default_rng(0).integers(0, 255, (32, 48, 3), dtype=np.uint8)
    encoded, plain = backbone.encode(rgb), Colours("cpu").encode(rgb)
    assert encoded.features.shape == (2, 3, 5) and encoded.stride == 16
    assert np.linalg.norm(encoded.features, axis=2) == pytest.approx(1.0, abs=1e-5)
    with torch.no_grad():
        wanted = head(torch.from_numpy(plain.features)).numpy()
    np.testing.assert_allclose(encoded.features, wanted, atol=1e-5)


def test_another_backbone_searches_with_its_own_features_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    head_in(tmp_path, "another")
    backbone = Colours("cpu")
    with caplog.at_level(logging.INFO):
        assert load_search_backbone("colours", backbone, tmp_path, "cpu") is backbone
    assert "no search head for backbone 'colours'" in caplog.text


def test_weights_without_a_head_take_the_embedded_one(tmp_path: Path) -> None:
    backbone = load_search_backbone(EFFICIENTNET, load_backbone(EFFICIENTNET, "cpu"), tmp_path, "cpu")
    assert isinstance(backbone, SearchBackbone)


@pytest.mark.parametrize("broken", ["*.safetensors", "config.json"])
def test_broken_head_is_an_error_that_names_its_folder(tmp_path: Path, broken: str) -> None:
    head_in(tmp_path, "colours")
    next((tmp_path / FOLDER).glob(broken)).write_bytes(b"half")
    with pytest.raises(CheckpointError, match=FOLDER):
        load_search_backbone("colours", Colours("cpu"), tmp_path, "cpu")
