"""Muon moves matrices, AdamW all else; both go on from their states."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from nocsfm_ros.training.optimizers import ADAMW, MUON, Muon, Optimizer, build_optimizer

RATE = 1e-2


def _network(memory_format: torch.memory_format = torch.contiguous_format) -> nn.Module:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.SiLU(), nn.Conv2d(8, 6, 1), nn.Flatten(), nn.Linear(24, 5))
    return network.to(memory_format=memory_format)  # type: ignore[call-overload, no-any-return]


def _learn(network: nn.Module, optimizer: Optimizer, steps: int, first: int = 0) -> None:
    for step in range(first, first + steps):
        x = torch.randn(4, 3, 4, 4, generator=torch.Generator().manual_seed(step))
        network.zero_grad()
        network(x).square().mean().backward()
        optimizer.step()


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_a_step_of_muon_goes_nearly_as_far_in_every_direction_and_biases_follow_adamw(
    memory_format: torch.memory_format,
) -> None:
    network, by_adamw = _network(memory_format), _network(memory_format)
    before = copy.deepcopy(network.state_dict())
    _learn(network, build_optimizer(MUON, network, RATE), 1)
    _learn(by_adamw, build_optimizer(ADAMW, by_adamw, RATE), 1)
    for name, value in network.state_dict().items():
        step = value - before[name]
        if name.endswith("bias"):
            torch.testing.assert_close(value, by_adamw.state_dict()[name])
            continue
        lengths = torch.linalg.svdvals(step.flatten(1))
        assert lengths.median() > 0.6 * lengths.max() > 0  # AdamW's: 0.15 to 0.5
        assert 0.1 * RATE < step.square().mean().sqrt() < 0.4 * RATE


def test_memory_format_changes_no_step() -> None:
    plain, last = _network(), _network(torch.channels_last)
    _learn(plain, build_optimizer(MUON, plain, RATE), 5)
    _learn(last, build_optimizer(MUON, last, RATE), 5)
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(value, last.state_dict()[name], rtol=0, atol=0.1 * RATE)


@pytest.mark.parametrize("name", [ADAMW, MUON])
def test_state_goes_on_as_if_never_stopped(name: str) -> None:
    whole, halves = _network(), _network()
    _learn(whole, build_optimizer(name, whole, RATE), 6)
    first = build_optimizer(name, halves, RATE)
    _learn(halves, first, 3)
    second = build_optimizer(name, halves, RATE)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    _learn(halves, second, 3, first=3)
    for key, value in whole.state_dict().items():
        torch.testing.assert_close(value, halves.state_dict()[key])


def test_frozen_layers_stay_and_the_learning_rate_is_one_for_both() -> None:
    network = _network()
    network[0].requires_grad_(False)  # type: ignore[index]
    before = copy.deepcopy(network[0].state_dict())  # type: ignore[index]
    optimizer = Muon(network, RATE)
    for group in optimizer.param_groups:
        group["lr"] = 0.5 * RATE
    assert [group["lr"] for group in (*optimizer.muon.param_groups, *optimizer.adamw.param_groups)] == [0.5 * RATE] * 2
    _learn(network, optimizer, 2)
    for name, value in network[0].state_dict().items():  # type: ignore[index]
        assert torch.equal(value, before[name])
