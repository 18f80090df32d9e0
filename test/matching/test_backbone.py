"""Both backbones: shapes, lengths, the map from cells to pixels, clear words for bad weights."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest
import torch

from nocsfm_ros.errors import CheckpointError, ShapeError
from nocsfm_ros.matching.backbone import Backbone, load_backbone
from nocsfm_ros.types import Uint8Array


@functools.cache
def lite() -> Backbone:
    return load_backbone("efficientnet_lite0", "cpu")


def noise(seed: int, height: int, width: int) -> Uint8Array:
    return np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)


def save_dinov3(folder: Path) -> Path:
    from transformers import DINOv3ViTConfig, DINOv3ViTModel

    torch.manual_seed(0)
    config = DINOv3ViTConfig(
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        patch_size=16,
        num_register_tokens=4,
    )
    DINOv3ViTModel(config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(("height", "width"), [(64, 96), (65, 90), (16, 16), (1, 1), (48, 80)])
def test_efficientnet_any_size_gives_unit_cells_that_cover_the_picture(height: int, width: int) -> None:
    encoded = lite().encode(noise(0, height, width))
    assert encoded.stride == 16
    assert encoded.features.shape[:2] == (-(-height // 16), -(-width // 16))
    assert encoded.features.dtype == np.float32
    assert np.allclose(np.linalg.norm(encoded.features, axis=2), 1.0, atol=1e-4)


def test_efficientnet_mirrored_picture_gives_mirrored_cells() -> None:
    """A grid that sits off its pixels' middle would shift against its mirror image by twice the error."""
    rgb = np.kron(noise(1, 10, 12), np.ones((24, 24, 1))).astype(np.uint8)
    straight = lite().encode(rgb).features
    mirrored = lite().encode(np.ascontiguousarray(rgb[:, ::-1])).features[:, ::-1]
    straight, mirrored = (x - x.mean(axis=(0, 1)) for x in (straight, mirrored))
    moved = (np.roll(mirrored, step, axis=1) for step in (1, 0, -1))
    left, middle, right = (float((straight[:, 1:-1] * cells[:, 1:-1]).sum()) for cells in moved)
    shift_cells = 0.5 * (left - right) / (left - 2 * middle + right)
    assert abs(shift_cells) * 16 / 2 < 1.5


@pytest.mark.parametrize(
    ("shape", "dtype"), [((8, 8), np.uint8), ((8, 8, 3), np.float32), ((0, 8, 3), np.uint8)]
)
def test_encode_no_picture_raises(shape: tuple[int, ...], dtype: type) -> None:
    with pytest.raises(ShapeError, match="uint8"):
        lite().encode(np.zeros(shape, dtype))


def test_dinov3_folder_gives_one_unit_feature_per_patch(tmp_path: Path) -> None:
    backbone = load_backbone(str(save_dinov3(tmp_path / "dino")), "cpu")
    encoded = backbone.encode(noise(2, 40, 70))
    assert encoded.stride == 16
    assert encoded.features.shape == (3, 5, 32)
    assert np.allclose(np.linalg.norm(encoded.features, axis=2), 1.0, atol=1e-4)


def test_dinov3_features_are_patch_tokens_row_by_row(tmp_path: Path) -> None:
    from transformers import DINOv3ViTModel

    folder, rgb = save_dinov3(tmp_path / "dino"), noise(3, 32, 48)
    found = load_backbone(str(folder), "cpu").encode(rgb).features
    mean, std = (torch.tensor(x).view(1, 3, 1, 1) for x in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    scaled = (torch.from_numpy(rgb).permute(2, 0, 1)[None] / 255.0 - mean) / std
    with torch.inference_mode():
        tokens = DINOv3ViTModel.from_pretrained(folder).eval()(pixel_values=scaled).last_hidden_state[0, 5:]
    expected = torch.nn.functional.normalize(tokens, dim=1).reshape(2, 3, 32).numpy()
    assert np.allclose(found, expected, atol=1e-4)


def test_load_backbone_missing_folder_raises_with_the_choices(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no such folder.*efficientnet_lite0"):
        load_backbone(str(tmp_path / "nowhere"), "cpu")


def test_load_backbone_folder_without_config_raises(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        load_backbone(str(tmp_path), "cpu")


def test_load_backbone_truncated_weights_raises(tmp_path: Path) -> None:
    weights = save_dinov3(tmp_path / "dino") / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="readable DINOv3 weights"):
        load_backbone(str(weights.parent), "cpu")


def test_load_backbone_weights_of_another_network_raises(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    folder = save_dinov3(tmp_path / "dino")
    save_file({"other.weight": torch.zeros(3)}, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="weights missing"):
        load_backbone(str(folder), "cpu")
