"""Compiled blocks compute the same, also backwards, and keep their weights' names."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from distill.methods.teacher_forcing import teacher_forced_velocity
from distill.training.blocks import compile_blocks
from world.model.patterns import TeacherForcing
from world.testing import CONFIGS, tiny_transformer


@pytest.mark.timeout(600)  # compiling takes much longer on a busy machine
@pytest.mark.filterwarnings("ignore")  # the compiler warns about its own code
def test_compiled_blocks_equal_plain_ones() -> None:
    plain = tiny_transformer(CONFIGS["pixel"][1])
    compiled = compile_blocks(copy.deepcopy(plain))
    assert compiled.state_dict().keys() == plain.state_dict().keys()
    config = plain.config
    generator = torch.Generator().manual_seed(0)
    shape = (2, 4, config.channels, config.height, config.width)
    clean, noisy = torch.randn(shape, generator=generator), torch.randn(shape, generator=generator)
    actions = torch.randn(2, 4, config.action_dim, generator=generator)
    level = torch.rand(2, 4, generator=generator)
    gradients = []
    for network in (plain, compiled):
        velocity = teacher_forced_velocity(
            network, clean, noisy, level, torch.zeros_like(level), actions, TeacherForcing(config, 4)
        )
        velocity.square().mean().backward()
        gradients.append([velocity.detach(), *(p.grad for p in network.parameters() if p.grad is not None)])
    assert len(gradients[0]) == len(gradients[1]) > 10
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-3)


@pytest.mark.filterwarnings("ignore")  # the compiler warns about its own code
@pytest.mark.parametrize("gradients", [True, False])
def test_a_whole_block_is_one_graph(gradients: bool) -> None:
    """If the compiler cannot trace a part, it silently falls back, and training takes longer."""
    network = tiny_transformer(CONFIGS["pixel"][1])
    config, explained = network.config, []

    def block(*args: Any) -> Any:
        explained.append(torch._dynamo.explain(forward)(*args))
        return forward(*args)

    forward, network.blocks[1].forward = network.blocks[1].forward, block
    x, level = torch.randn(2, 4, config.channels, config.height, config.width), torch.rand(2, 4)
    actions = torch.randn(2, 4, config.action_dim)
    with torch.set_grad_enabled(gradients):
        teacher_forced_velocity(network, x, x, level, level, actions, TeacherForcing(config, 4))
    assert [found.graph_break_count for found in explained] == [0], explained[0].break_reasons


def test_training_works_without_a_compiler(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr("distill.training.blocks.shutil.which", lambda name: None)
    network = tiny_transformer(CONFIGS["pixel"][1])
    before = [block.forward for block in network.blocks]
    compile_blocks(network)
    assert [block.forward for block in network.blocks] == before
    assert "takes longer" in caplog.text
