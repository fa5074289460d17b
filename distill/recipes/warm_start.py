"""Start a run from a finished world: its codec and student become the run's first products. Trains nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from distill.recipes.build import save_codec
from distill.recipes.preset import Preset
from distill.recipes.run import Run
from distill.training.trainer import Trainer
from world.checkpoint import World
from world.codecs.convolutional import ConvolutionalCodec
from world.errors import LightconeError
from world.model.transformer import Transformer


class _Initialised:
    """A task for a student that is finished: it has nothing to train."""

    optimised: ClassVar = {"student": 1.0}
    averaged = "student"

    def __init__(self, student: nn.Module) -> None:
        self.modules: Mapping[str, nn.Module] = {"student": student}

    def losses(self, step: int, generator: torch.Generator) -> Iterator[tuple[str, Tensor, dict[str, float]]]:
        return iter(())


def warm_start(run: Run, checkpoint: Path) -> None:
    """Make the checkpoint's codec the product of `codec`, and its student the product of `warm_up`. Record the data,
    which name the state variables; latents and later stages are left to the run. Weights in a checkpoint are 16-bit;
    training continues in float32.

    Raises LightconeError where the run has these stages already, or the checkpoint has another shape than the preset.
    """
    present = [stage for stage in ("codec", "warm_up") if (run.folder / stage).exists()]
    if present:
        raise LightconeError(f"{run.folder} already has the stage {present[0]}: delete the folder, or leave --from out")
    world = World.load(checkpoint, dtype=torch.float32, device="cpu")
    _check_shape(world, run.preset, checkpoint)
    run.stage("collect")
    codec = ConvolutionalCodec(run.preset.codec_config(run.dataset().spec))
    if world.codec.state_variables not in ((), codec.state_variables):
        raise LightconeError(
            f"{checkpoint} has the state variables {world.codec.state_variables}, but its environment names "
            f"{codec.state_variables}: train without --from, or record with the former spec"
        )
    codec.load_state_dict(codec.state_dict() | world.codec.state_dict())  # a missing state estimator is trained later
    save_codec(codec, run)
    run.take_over("codec")
    student, config = run.transformer(), run.preset.warm_up_trainer
    student.load_state_dict(widened(world.transformer.state_dict(), student))
    trainer = Trainer(_Initialised(student), config, run.folder / "warm_up")
    trainer.step = config.num_steps
    trainer.save()
    run.take_over("warm_up")


def widened(state: dict[str, Tensor], student: Transformer) -> dict[str, Tensor]:
    """Return the weights of a network with fewer channels, extended to the student's shape. The new channels have no
    influence at first, and are predicted as if they had no noise."""
    wide = {name: value.clone() for name, value in student.state_dict().items()}
    wide["patch_in.weight"].zero_()
    for name, value in state.items():
        wide[name][tuple(slice(size) for size in value.shape)] = value
    return wide


def _check_shape(world: World, preset: Preset, checkpoint: Path) -> None:
    config = world.transformer.config
    shape = {
        "codec_channels": world.codec.config.channels,
        "codec_widths": tuple(world.codec.config.widths),
        "dim": config.dim,
        "ffn_dim": config.ffn_dim,
        "num_layers": config.num_layers,
        "num_heads": config.num_heads,
        "window_frames": config.window_frames,
    }
    other = [
        f"{name} {value}, not {getattr(preset, name)}"
        for name, value in shape.items()
        if value != getattr(preset, name)
    ]
    if other:
        raise LightconeError(f"{checkpoint} has another shape than the recipe: {'; '.join(other)}")
