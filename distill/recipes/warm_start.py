"""A run that goes on from a finished world: its codec and its student become a new run's first products. Owns what is
written to the run folder; trains nothing."""

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
    """A student that is there already: nothing of it is trained."""

    optimised: ClassVar = {"student": 1.0}
    averaged = "student"

    def __init__(self, student: nn.Module) -> None:
        self.modules: Mapping[str, nn.Module] = {"student": student}

    def losses(self, step: int, generator: torch.Generator) -> Iterator[tuple[str, Tensor, dict[str, float]]]:
        return iter(())


def warm_start(run: Run, checkpoint: Path) -> None:
    """Make the checkpoint's codec the run's, finished, and its student the product of `warm_up`: data, latents and the
    later stages are then made anew (data at once, since it says what is tracked). Weights of a checkpoint are 16-bit;
    training continues in float32.

    Raises LightconeError where the run has stages of its own, or the checkpoint is of another shape than the preset.
    """
    taken = [stage for stage in ("codec", "warm_up") if (run.folder / stage).exists()]
    if taken:
        raise LightconeError(f"{run.folder} has a {taken[0]} of its own: delete the folder, or leave --from out")
    world = World.load(checkpoint, dtype=torch.float32, device="cpu")
    _check_shape(world, run.preset, checkpoint)
    run.stage("collect")
    codec = ConvolutionalCodec(run.preset.codec_config(run.dataset().spec))
    if world.codec.config.state_variables not in ((), codec.config.state_variables):
        raise LightconeError(
            f"{checkpoint} keeps track of {world.codec.config.state_variables}, its environment now names "
            f"{codec.config.state_variables}: train from nothing, or record with the former spec"
        )
    codec.load_state_dict(codec.state_dict() | world.codec.state_dict())  # a tracker that it lacks is trained later
    save_codec(codec, run)
    run.take_over("codec")
    student, config = run.transformer(), run.preset.warm_up_trainer
    student.load_state_dict(widened(world.transformer.state_dict(), student))
    trainer = Trainer(_Initialised(student), config, run.folder / "warm_up")
    trainer.step = config.num_steps
    trainer.save()
    run.take_over("warm_up")


def widened(state: dict[str, Tensor], student: Transformer) -> dict[str, Tensor]:
    """Weights for fewer channels, fitted to the student's: the channels after them have no influence at first, and are
    predicted as if no noise were on them."""
    own = {name: value.clone() for name, value in student.state_dict().items()}
    own["patch_in.weight"].zero_()
    for name, value in state.items():
        own[name][tuple(slice(size) for size in value.shape)] = value
    return own


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
