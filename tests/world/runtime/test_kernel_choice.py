"""The choice of kernels belongs to a model: two worlds in one process do not affect each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from kernels import attention as attention_package
from kernels.attention.matmul import matmul_attention
from kernels.dispatch import KernelChoice
from kernels.write_attend import native, write_attend
from tests.world.rollouts import rolled_out, started, stepped
from world import World, testing
from world.runtime.native_attention import load_native_attention, make_native_attention
from world.testing import CONFIGS, tiny_world


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    counts: Counter[str] = Counter()

    def counted(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **named: Any) -> Any:
            counts[name] += 1
            return function(*args, **named)

        return call

    monkeypatch.setattr(attention_package, "matmul_attention", counted("matmul", matmul_attention))
    monkeypatch.setattr("world.rollout.cache.write_attend", counted("native", write_attend))
    fused = counted("fused", F.scaled_dot_product_attention)
    monkeypatch.setattr(F, "scaled_dot_product_attention", fused)
    return counts


def _check_in_turns(worlds: dict[str, World], calls: Counter[str], *, replays: dict[str, str]) -> None:
    """Assert that each world calls the kernel of its key and that its latents equal those it has alone."""
    alone = {name: rolled_out(world, [0, 1], 4)[1] for name, world in worlds.items()}
    calls.clear()
    rollouts = {}
    for name, world in worlds.items():
        rollouts[name] = started(world, [0, 1])
        assert calls.keys() == {replays[name]}, "a replay uses the model's kernel, too"
        calls.clear()
    latents: dict[str, list[Tensor]] = {name: [] for name in worlds}
    for number in range(4):
        for name, world in worlds.items():
            latents[name].append(stepped(rollouts[name], world, [0, 1], [number]))
            assert calls.keys() == {name}, f"step {number} of the world that uses {name}"
            calls.clear()
    for name, expected in alone.items():
        assert torch.equal(torch.cat(latents[name], 1), expected), name


def _world(choice: KernelChoice, *, config: str = "pixel", dtype: torch.dtype = torch.float32) -> World:
    world = tiny_world(config=config, dtype=dtype)
    world.kernel_choice = choice
    return world


def test_matrix_products_and_the_fused_operation(calls: Counter[str]) -> None:
    worlds = {
        "matmul": _world(KernelChoice(matmul_attention=True)),
        "fused": _world(KernelChoice(matmul_attention=False)),
    }
    _check_in_turns(worlds, calls, replays={"matmul": "matmul", "fused": "fused"})


def test_text_is_attended_to_by_the_same_choice(calls: Counter[str]) -> None:
    for name, preferred in (("matmul", True), ("fused", False)):
        world = _world(KernelChoice(matmul_attention=preferred), config="wan")
        rollout = started(world, [0])  # self-attention of a world with a sink uses neither of the two
        rollout.set_text(0, torch.ones(2, world.transformer.config.text_dim))
        calls.clear()
        stepped(rollout, world, [0], [0])
        assert calls.keys() == {name}


@pytest.mark.skipif(not native.can_build(), reason="needs a CPU with AVX512-BF16, and g++")
def test_native_attention(calls: Counter[str], monkeypatch: pytest.MonkeyPatch) -> None:
    codec, config = CONFIGS["pixel"]
    monkeypatch.setitem(testing.CONFIGS, "wide", (codec, replace(config, dim=32 * config.num_heads)))
    assert make_native_attention(torch.bfloat16)
    assert load_native_attention()
    worlds = {
        "native": _world(
            KernelChoice(native_attention=True, matmul_attention=False), config="wide", dtype=torch.bfloat16
        ),
        "matmul": _world(KernelChoice(matmul_attention=True), config="wide", dtype=torch.bfloat16),
    }
    _check_in_turns(worlds, calls, replays={"native": "fused", "matmul": "matmul"})
