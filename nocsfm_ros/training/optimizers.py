"""AdamW, or Muon for the matrices and AdamW for all else."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import nn

ADAMW, MUON = "adamw", "muon"
WEIGHT_DECAY, BETAS, MOMENTUM = 0.01, (0.9, 0.99), 0.95


class Optimizer(Protocol):
    """What the loop needs of torch.optim.Optimizer."""

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Where the learning rates are set."""

    def step(self) -> None:
        """Move the parameters against their gradients."""

    def state_dict(self) -> dict[str, Any]:
        """All that goes on from here."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there."""


def build_optimizer(name: str, model: nn.Module, learning_rate: float) -> Optimizer:
    """ADAMW or MUON for the model's trainable parameters."""
    if name == MUON:
        return Muon(model, learning_rate)
    return _adamw([parameter for parameter in model.parameters() if parameter.requires_grad], learning_rate)


class Muon:
    """K. Jordan et al., "Muon: an optimizer for hidden layers", 2024, by torch.optim: a matrix moves as far in every
    direction that its gradient has, also in those of which single examples tell little.

    A convolution is the matrix of its output channels by all that each of them sums over. Biases, norms and free
    parameters have no such directions: AdamW. One step is as large as AdamW's (J. Liu et al., "Muon is scalable for LLM
    training", 2025), so both take one learning rate.

    Args:
        model: on the device and in the memory format in which it is trained.
        learning_rate: of both.
    """

    def __init__(self, model: nn.Module, learning_rate: float) -> None:
        layers = (layer for layer in model.modules() if isinstance(layer, nn.Linear | nn.Conv2d))
        self.weights = [layer.weight for layer in layers if layer.weight.requires_grad]
        self.matrices = [_as_matrix(weight) for weight in self.weights]
        known = {id(weight) for weight in self.weights}
        others = [p for p in model.parameters() if p.requires_grad and id(p) not in known]
        self.muon = torch.optim.Muon(
            self.matrices, learning_rate, WEIGHT_DECAY, MOMENTUM, adjust_lr_fn="match_rms_adamw"
        )
        self.adamw = _adamw(others, learning_rate)

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Of both."""
        return [*self.muon.param_groups, *self.adamw.param_groups]

    def step(self) -> None:
        """Move the parameters against their gradients."""
        for weight, matrix in zip(self.weights, self.matrices, strict=True):
            matrix.grad = None if weight.grad is None else _as_matrix(weight.grad, like=weight)
        self.muon.step()
        self.adamw.step()

    def state_dict(self) -> dict[str, Any]:
        """Of both."""
        return {"muon": self.muon.state_dict(), "adamw": self.adamw.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Of both."""
        self.muon.load_state_dict(state_dict["muon"])
        self.adamw.load_state_dict(state_dict["adamw"])


def _adamw(parameters: list[nn.Parameter], learning_rate: float) -> torch.optim.AdamW:
    return torch.optim.AdamW(parameters, learning_rate, BETAS, weight_decay=WEIGHT_DECAY)


def _as_matrix(weight: torch.Tensor, like: torch.Tensor | None = None) -> torch.Tensor:
    """(out, all else) view of the same memory, its columns in the order in which `like`'s memory has them."""
    weight, like = weight.detach(), weight if like is None else like
    if weight.ndim == 4 and like.is_contiguous(memory_format=torch.channels_last):
        weight = weight.permute(0, 2, 3, 1)
    return weight.flatten(1)
