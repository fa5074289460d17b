"""What the stages of a run have produced so far. Owns the layout of a run folder; trains nothing and knows no order.

Each stage has a folder of its name (`collect`: `data`). A stage that trains keeps `state.pt` there.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from distill.data.clips import Dataset
from distill.data.latents import ClipSampler
from distill.recipes.names import STAGE_ALIASES, STUDENT_STAGES
from distill.recipes.preset import Preset
from distill.training.state import STATE_FILE, load_file, load_product
from world.checkpoint import World
from world.codecs.convolutional import ConvolutionalCodec
from world.errors import LightconeError
from world.format_1 import weights_from_disk
from world.model.transformer import Transformer

CODEC_FILE, LATENTS_FILE = "codec.pt", "train.pt"


class StageError(LightconeError):
    """A stage cannot run: its name is unknown, an input is missing, or its product is out of date."""


@dataclass
class Products:
    """The products of one world's run.

    folder: the run's state, outside the checkout. checkpoint: where `export` writes. videos: a folder to learn from
    instead of the preset's environment. stop_after_s: the longest that one stage may train at a time. asked_steps: of
    the stage that is named, instead of the preset's.
    """

    name: str
    preset: Preset
    folder: Path
    checkpoint: Path
    videos: Path | None = None
    quiet: bool = False
    stop_after_s: float | None = None
    asked_steps: int | None = None

    def folder_of(self, stage: str) -> Path:
        """Return a stage's folder. One that still has the stage's former name is renamed first."""
        if stage == "collect":
            return self.folder / "data"
        folder = self.folder / stage
        for former, name in STAGE_ALIASES.items():
            if name == stage and (self.folder / former).exists() and not folder.exists():
                (self.folder / former).rename(folder)
        return folder

    def has_weights(self, stage: str) -> bool:
        """Return whether a stage has trained weights, finished or not."""
        return (self.folder_of(stage) / STATE_FILE).exists()

    def dataset(self) -> Dataset:
        """Open the recorded data. Raises DatasetError where there is none."""
        return Dataset.open(self.folder_of("collect"))

    @property
    def latents(self) -> Path:
        """The file of encoded training streams."""
        return self.folder_of("latents") / LATENTS_FILE

    def tracks_state(self) -> bool:
        """Return whether the environment names state variables, so that the codec has a state estimator."""
        return bool(self.dataset().spec.state_variables)

    def codec(self, *, later_decoders: bool = True) -> ConvolutionalCodec:
        """Return the trained codec with exact latent statistics and its state estimator.

        later_decoders: with the decoder of `decoder` and `decoder_finetuning` where these have run.
        """
        codec = ConvolutionalCodec(self.preset.codec_config(self.dataset().spec))
        path = self.folder_of("codec") / CODEC_FILE
        if not path.exists():
            raise StageError(f"{path} is missing: run the stage `codec` to its end first")
        codec.load_state_dict(weights_from_disk(load_file(path)))
        for stage in ("decoder", "decoder_finetuning") if later_decoders else ():
            if self.has_weights(stage):
                codec.load_state_dict(load_product(self.folder_of(stage))[0])
        if codec.state_estimator is not None and self.has_weights("state_estimator"):
            codec.state_estimator.load_state_dict(load_product(self.folder_of("state_estimator"))[0])
        return codec.channels_last().eval()

    def transformer(self, stage: str | None = None) -> Transformer:
        """Return a transformer with a stage's averaged weights, or with fresh ones."""
        torch.manual_seed(self.preset.teacher_trainer.seed)
        network = Transformer(self.preset.transformer_config(self.dataset().spec))
        if stage is not None:
            if not self.has_weights(stage):
                raise StageError(f"no weights of stage {stage} in {self.folder}: run `lightcone train` for it first")
            network.load_state_dict(load_product(self.folder_of(stage))[0])
        return network

    def clips(self, num_frames: int) -> ClipSampler:
        """Return a sampler of clips of `num_frames` latent frames, with estimated states where there are any."""
        if not self.tracks_state():
            return ClipSampler(self.latents, num_frames)
        if not self.has_weights("state_estimator"):
            raise StageError(f"no state estimator in {self.folder}: run the stage `state_estimator` first")
        return ClipSampler(self.latents, num_frames, codec=self.codec())

    def shipped_stage(self) -> str:
        """Return the stage whose student the preset ships, or the latest before it that has weights."""
        for stage in reversed(STUDENT_STAGES[: STUDENT_STAGES.index(self.preset.shipped_stage) + 1]):
            if self.has_weights(stage):
                return stage
        raise StageError(f"no student in {self.folder}: run `lightcone train {self.name}`")

    def student_worlds(self, world: World) -> dict[str, World]:
        """Return the student of each stage that has weights here, ready to play like `world`."""
        worlds = {}
        for stage in STUDENT_STAGES:
            if self.has_weights(stage):
                network = Transformer(world.transformer.config)
                network.load_state_dict(load_product(self.folder_of(stage))[0])
                # the codec is shared: with another dtype or device, it would be moved away from under `world`
                worlds[stage] = World(
                    world.card,
                    world.codec,
                    network,
                    self.preset.stage_sampler(stage),
                    dtype=world.dtype,
                    device=world.device,
                )
        return worlds
