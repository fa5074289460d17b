"""A rollout through the Triton kernels (on a CPU, in Triton's interpreter) equals one by PyTorch's operations."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from kernels.dispatch import through_triton
from tests.world.definitions import assert_within
from tests.world.rollouts import rolled_out
from world import World
from world.model.transformer import Conditioning
from world.rollout.cache import Arena, ArenaPattern
from world.testing import WAN, tiny_transformer


class Fused(TorchDispatchMode):
    """Counts the fused operations that run inside."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # untyped in torch
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "lightcone":
            self.counts[func._opname] += 1
        return func(*args, **kwargs or {})


def test_fused_rollouts_equal_plain_ones(short_world: World) -> None:
    world = short_world
    config, slots = world.transformer.config, [3, 0]
    num_steps = config.window_chunks + 2  # past the ring's wrap
    plain, expected = rolled_out(world, slots, num_steps)
    with through_triton(), Fused() as fused:
        through, ours = rolled_out(world, slots, num_steps)
    assert_within(ours, expected, 1e-4)
    for cache, other in ((plain.arena.k, through.arena.k), (plain.arena.v, through.arena.v)):
        torch.testing.assert_close(other, cache, atol=1e-4, rtol=1e-4)
    # by layer and step: the first stage's pass has two chunks (a commit, a noisy one), the second has one
    assert fused.counts["ring_attention"] == fused.counts["qk_norm_rope_write"] == 3 * config.num_layers * num_steps
    passes = 2 * num_steps + len(slots)  # a replay fills each slot at its start
    assert fused.counts["norm_modulate"] == passes * (2 * config.num_layers + 1)


def test_rollouts_in_static_buffers_equal_plain_ones(world: World) -> None:
    num_steps = 3 * (world.transformer.config.window_chunks + 1) + 2
    for slots in ([1, 2, 3], [3, 0, 2], [2]):
        plain, expected = rolled_out(world, slots, num_steps)
        static, ours = rolled_out(world, slots, num_steps, static=True)
        assert_within(ours, expected, 1e-4)
        torch.testing.assert_close(static.arena.k, plain.arena.k, atol=1e-4, rtol=1e-4)
        assert static._static is not None
        assert static._static._passes.keys() == {(len(slots), 1), (len(slots), 2)}, "one pass for each shape"


@torch.inference_mode()
def test_warm_up_restores_the_arena(world: World) -> None:
    rollout, _ = rolled_out(world, [0, 1], 3, static=True)
    assert rollout._static is not None
    before = rollout.arena.k.clone(), rollout.arena.v.clone()
    for static_pass in rollout._static._passes.values():
        static_pass.warm_up()
        assert torch.equal(rollout.arena.k, before[0])
        assert torch.equal(rollout.arena.v, before[1])


def test_fused_passes_attend_to_text() -> None:
    network = tiny_transformer(WAN[1])
    config = network.config
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, config.channels, config.height, config.width, generator=generator)
    cond = Conditioning(
        actions=torch.randn(2, 3, config.action_dim, generator=generator),
        text=torch.randn(2, config.num_text_tokens, config.text_dim, generator=generator),
    )
    found = []
    for fused in (False, True):
        arena = Arena(config, 2, dtype=torch.float32)
        arena.k.normal_(generator=torch.Generator().manual_seed(1))
        arena.v.normal_(generator=torch.Generator().manual_seed(2))
        pattern = ArenaPattern.of(arena, [0, 1], [5, 9])
        with torch.no_grad():
            if fused:
                with through_triton():
                    found.append(network(x, torch.full((2, 3), 0.5), cond, pattern=pattern).prediction)
            else:
                found.append(network(x, torch.full((2, 3), 0.5), cond, pattern=pattern).prediction)
    assert_within(found[1], found[0], 1e-5)
