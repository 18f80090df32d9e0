"""What the backbone's features lack for finding things: cells of one object alike, unlike everything around it."""

from __future__ import annotations

import logging
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import nn

from nocsfm_ros.checkpoints import EMBEDDED, load_pretrained
from nocsfm_ros.matching.backbone import Backbone

FOLDER = "search"  # below a weights folder
_log = logging.getLogger(__name__)


class SearchHead(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """A linear map of each cell's features, and what a hidden layer adds to it.

    Args:
        backbone: name of the one whose features it takes.
        channels: of them.
        hidden_width, width: of the hidden layer and of the answer.
    """

    @register_to_config
    def __init__(self, backbone: str, channels: int, hidden_width: int = 384, width: int = 96) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, width, bias=False)
        self.to_hidden, self.from_hidden = nn.Linear(channels, hidden_width), nn.Linear(hidden_width, width)
        nn.init.orthogonal_(self.linear.weight)
        nn.init.zeros_(self.from_hidden.weight)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Features (..., channels) of length 1 -> (..., width) of length 1."""
        bent = self.linear(features) + self.from_hidden(F.gelu(self.to_hidden(features)))
        return F.normalize(bent.float(), dim=-1)


class SearchBackbone(Backbone):
    """A backbone with a search head on it."""

    def __init__(self, backbone: Backbone, head: SearchHead, device: str) -> None:
        super().__init__(device)
        self.backbone, self.head = backbone, head.to(self.device)  # type: ignore[call-overload]
        self.stride = backbone.stride

    def dense_features(self, image: torch.Tensor) -> torch.Tensor:
        features = F.normalize(self.backbone.dense_features(image).float(), dim=1)
        bent: torch.Tensor = self.head(features.permute(0, 2, 3, 1))
        return bent.permute(0, 3, 1, 2)


def load_search_backbone(name: str, backbone: Backbone, weights: Path, device: str) -> Backbone:
    """The backbone with the search head of a weights folder, else with the embedded one, where that is for it.

    Args:
        name: of the backbone, as model.backbone.
        backbone: loaded.
        weights: folder; what `train flow` makes has no head of its own.
        device: "cpu" or "cuda".

    Returns:
        The backbone itself, and a line in the log, where neither head is for it: nothing else can be done then, and
        objects are found less often.

    Raises:
        CheckpointError: unreadable weights.
    """
    for folder in (weights / FOLDER, EMBEDDED / FOLDER):
        if not (folder / "config.json").is_file():
            continue
        head = load_pretrained(SearchHead, folder)
        if head.config["backbone"] == name:
            return SearchBackbone(backbone, head, device)
    _log.info("no search head for backbone %r: objects are searched with its own features", name)
    return backbone
