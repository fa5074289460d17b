"""A run that goes on from a finished world: its codec and its student become a new run's first products. Owns what is
written to the run folder; trains nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from distill.pipeline import Run
from distill.presets import Preset
from distill.trainer import Trainer
from world.errors import LightconeError
from world.world import World


class _Given:
    """A student that is there already: nothing of it is trained."""

    optimised: ClassVar = {"student": 1.0}
    averaged = "student"

    def __init__(self, student: nn.Module) -> None:
        self.modules: Mapping[str, nn.Module] = {"student": student}

    def losses(self, step: int, generator: torch.Generator) -> Iterator[tuple[str, Tensor, dict[str, float]]]:
        return iter(())


def go_on_from(run: Run, checkpoint: Path) -> None:
    """Make the checkpoint's codec the run's, finished, and its student the product of `warm_up`: data, latents and the
    later stages are then made anew. Weights of a checkpoint are 16-bit; training continues in float32.

    Raises LightconeError where the run has stages of its own, or the checkpoint is of another shape than the preset.
    """
    taken = [stage for stage in ("codec", "warm_up") if (run.folder / stage).exists()]
    if taken:
        raise LightconeError(f"{run.folder} has a {taken[0]} of its own: delete the folder, or leave --from out")
    world = World.load(checkpoint, dtype=torch.float32, device="cpu")
    _check_shape(world, run.preset, checkpoint)
    (run.folder / "codec").mkdir(parents=True)
    torch.save(world.codec.state_dict(), run.folder / "codec" / "codec.pt")
    config = run.preset.warm_up_trainer
    trainer = Trainer(_Given(world.transformer), config, run.folder / "warm_up")
    trainer.step = config.num_steps
    trainer.save()


def _check_shape(world: World, preset: Preset, checkpoint: Path) -> None:
    config = world.transformer.config
    own = {
        "codec_channels": world.codec.config.channels,
        "codec_widths": tuple(world.codec.config.widths),
        "dim": config.dim,
        "ffn_dim": config.ffn_dim,
        "num_layers": config.num_layers,
        "num_heads": config.num_heads,
        "window_frames": config.window_frames,
    }
    other = [
        f"{name} {value}, not {getattr(preset, name)}" for name, value in own.items() if value != getattr(preset, name)
    ]
    if other:
        raise LightconeError(f"{checkpoint} has another shape than the recipe: {'; '.join(other)}")
