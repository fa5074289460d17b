"""From an environment to a checkpoint, stage by stage. Owns the order and the run folder; each stage resumes by itself.

A stage that has finished is skipped; one that was stopped goes on at its exact step. `Run.stage(name)` runs one.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from distill.codec.decoder_finetuning import DecoderFinetuningTask
from distill.codec.state_estimator import StateEstimatorTask
from distill.codec.tasks import CodecTask, DecoderTask, fix_background, fix_statistics
from distill.data.clips import Dataset
from distill.data.collect import collect, collect_config
from distill.data.latents import ClipSampler, encode_dataset, typical_stretch
from distill.recipes.export import export_world
from distill.recipes.preset import STAGES, STUDENT_STAGES, Preset
from distill.tasks.causal_consistency import ConsistencyTask
from distill.tasks.self_forcing import SelfForcingTask
from distill.tasks.teacher import TeacherTask
from distill.tasks.teacher_forcing import TeacherForcingTask
from distill.training.blocks import compile_blocks
from distill.training.trainer import Task, Trainer, TrainerConfig, load_product
from world.checkpoint import World
from world.codecs.convolutional import Codec
from world.errors import LightconeError
from world.format_1 import weights_from_disk
from world.model.transformer import Transformer

logger = logging.getLogger(__name__)


STATE_ESTIMATOR_CLIP_FRAMES = 12


class StageError(LightconeError):
    """A stage was asked for before the one it builds on."""


@dataclass
class Run:
    """One world's training run. folder: its state outside the checkout. checkpoint: where `export` writes. videos: a
    folder to learn from instead of the preset's environment."""

    name: str
    preset: Preset
    folder: Path
    checkpoint: Path
    videos: Path | None = None
    quiet: bool = False
    stop_after_s: float | None = None

    def all_stages(self) -> bool:
        """Run every stage in order; False if time ran out on the way (run again to go on)."""
        return all(self.stage(name) for name in STAGES)

    def stage(self, name: str) -> bool:
        """Run one stage to its end; False if `stop_after_s` came first."""
        steps: dict[str, Callable[[], bool]] = {
            "collect": self._collect,
            "codec": self._codec,
            "decoder": self._decoder,
            "latents": self._latents,
            "tracker": self._state_estimator,
            "warm_up": self._warm_up,
            "teacher": self._teacher,
            "teacher_forced": self._teacher_forced,
            "few_step": self._few_step,
            "distilled": self._distilled,
            "finish": self._decoder_finetuning,
            "export": self._export,
        }
        if name not in steps:
            raise StageError(f"stage {name!r}: choose one of {', '.join(STAGES)}")
        logger.info("%s: %s", self.name, name)
        return steps[name]()

    def dataset(self) -> Dataset:
        return Dataset.open(self.folder / "data")

    def codec(self, *, polished: bool = True) -> Codec:
        """The trained codec, with exact latent statistics and its tracker; its decoder `polished` by `decoder` and
        `decoder_finetuning` where these ran."""
        codec = Codec(self.preset.codec_config(self.dataset().spec))
        path = self.folder / "codec" / "codec.pt"
        if not path.exists():
            raise StageError(f"{path} is missing: run the stage `codec` to its end first")
        codec.load_state_dict(weights_from_disk(torch.load(path, weights_only=True)))
        for stage in ("decoder", "finish") if polished else ():
            if self._has_weights(stage):
                codec.load_state_dict(load_product(self.folder / stage)[0])
        if codec.state_estimator is not None and self._has_weights("tracker"):
            codec.state_estimator.load_state_dict(load_product(self.folder / "tracker")[0])
        return codec.channels_last().eval()

    def transformer(self, stage: str | None = None) -> Transformer:
        """A transformer with a stage's averaged weights, or fresh ones."""
        torch.manual_seed(self.preset.teacher_trainer.seed)
        network = Transformer(self.preset.transformer_config(self.dataset().spec))
        if stage is not None:
            if not (self.folder / stage / "state.pt").exists():
                raise StageError(f"no weights of stage {stage} in {self.folder}: run `lightcone train` for it first")
            network.load_state_dict(load_product(self.folder / stage)[0])
        return network

    def clips(self, num_frames: int) -> ClipSampler:
        codec = self.codec()
        if codec.state_estimator is not None and not self._has_weights("tracker"):
            raise StageError(f"no tracker in {self.folder}: run the stage `tracker` first")
        path = self.folder / "latents" / "train.pt"
        return ClipSampler(path, num_frames, codec=None if codec.state_estimator is None else codec)

    def _collect(self) -> bool:
        data, config = self.folder / "data", self.preset.collect
        if self.videos is not None:
            from distill.data.environments.video import import_videos  # here, since it loads the video libraries

            import_videos(self.videos, data, height=config.height, width=config.width, quiet=self.quiet)
            return True
        before = Dataset.open(data).collected if (data / "dataset.json").exists() else {}
        if "videos" in before:
            return True
        if before.get("num_train"):  # `lightcone collect` ran, perhaps with arguments of its own: those count
            config = collect_config(before)
        collect(data, config, quiet=self.quiet)  # records what is not there; evaluation leaves only held-out streams
        return True

    def _codec(self) -> bool:
        target = self.folder / "codec" / "codec.pt"
        if target.exists():
            return True
        torch.manual_seed(self.preset.codec_trainer.seed)
        codec = Codec(self.preset.codec_config(self.dataset().spec)).channels_last()
        fix_background(codec, self.dataset())
        task = CodecTask(codec, self.dataset(), self.preset.codec_loss, num_episodes=self.preset.codec_episodes)
        if not self._train("codec", task, self.preset.codec_trainer):
            return False
        codec.load_state_dict(load_product(self.folder / "codec")[0])
        fix_statistics(codec, self.dataset())
        torch.save(codec.state_dict(), target)
        return True

    def _decoder(self) -> bool:
        if self.preset.decoder_trainer is None:
            return True
        codec = self.codec(polished=False).train()
        task = DecoderTask(codec, self.dataset(), self.preset.decoder_loss, num_episodes=self.preset.codec_episodes)
        return self._train("decoder", task, self.preset.decoder_trainer)

    def _latents(self) -> bool:
        encode_dataset(self.codec(), self.dataset(), self.folder / "latents" / "train.pt", quiet=self.quiet)
        return True

    def _state_estimator(self) -> bool:
        codec = self.codec()
        if codec.state_estimator is None:
            return True
        clips = ClipSampler(self.folder / "latents" / "train.pt", STATE_ESTIMATOR_CLIP_FRAMES, still_share=0.0)
        task = StateEstimatorTask(codec, clips, self.preset.state_estimator)
        return self._train("tracker", task, self.preset.state_estimator_trainer)

    def _trainable(self, stage: str | None = None) -> Transformer:
        """A transformer to train, compiled where the preset says so."""
        network = self.transformer(stage)
        return compile_blocks(network) if self.preset.compile_blocks else network

    def _warm_up(self) -> bool:
        clips = self.clips(self.preset.warm_up_clip_frames)
        task = TeacherForcingTask(self._trainable(), clips, self.preset.warm_up)
        return self._train("warm_up", task, self.preset.warm_up_trainer)

    def _teacher(self) -> bool:
        clips = self.clips(self.preset.window_frames + 1)
        task = TeacherTask(self._trainable("warm_up"), clips, self.preset.teacher)
        return self._train("teacher", task, self.preset.teacher_trainer)

    def _teacher_forced(self) -> bool:
        clips = self.clips(self.preset.student_clip_frames)
        task = TeacherForcingTask(self._trainable(self.preset.student_from), clips, self.preset.teacher_forced)
        return self._train("teacher_forced", task, self.preset.teacher_forced_trainer)

    def _few_step(self) -> bool:
        preset = self.preset
        task = ConsistencyTask(
            self.transformer("teacher_forced"),
            self.transformer("teacher_forced"),
            self.clips(preset.student_clip_frames),
            preset.few_step,
        )
        return self._train("few_step", task, preset.few_step_trainer)

    def _distilled(self) -> bool:
        preset = self.preset
        shortest, longest = preset.distilled.new_frames[1], preset.distilled.rollout_frames
        room = typical_stretch(self.folder / "latents" / "train.pt") - preset.window_frames
        clips = self.clips(preset.window_frames + max(shortest, min(longest, room)))
        teacher = self.transformer("teacher_forced" if preset.distilled.causal_scores else "teacher")
        task = SelfForcingTask(self.transformer("few_step"), teacher, clips, preset.distilled)
        return self._train("distilled", task, preset.distilled_trainer)

    def _decoder_finetuning(self) -> bool:
        preset = self.preset
        if preset.decoder_finetuning_trainer is None:
            return True
        student = self.transformer(self.shipped_stage())
        task = DecoderFinetuningTask(
            self.codec().train(),
            student,
            self.dataset(),
            preset.decoder_loss,
            preset.decoder_finetuning,
            num_episodes=preset.codec_episodes,
        )
        return self._train("finish", task, preset.decoder_finetuning_trainer)

    def _export(self) -> bool:
        stage = self.shipped_stage()
        export_world(
            self.checkpoint,
            self.name,
            self.preset,
            self.dataset(),
            self.codec(),
            stage,
            self.transformer(stage),
            self.transformer("teacher") if self._has_weights("teacher") else None,
        )
        return True

    def shipped_stage(self) -> str:
        """The stage whose student the preset ships, or the latest before it that has weights."""
        for stage in reversed(STUDENT_STAGES[: STUDENT_STAGES.index(self.preset.shipped_stage) + 1]):
            if self._has_weights(stage):
                return stage
        raise StageError(f"no student in {self.folder}: run `lightcone train {self.name}`")

    def _has_weights(self, stage: str) -> bool:
        return (self.folder / stage / "state.pt").exists()

    def student_worlds(self, world: World) -> dict[str, World]:
        """The student after each stage that has weights here, ready to play like `world`."""
        worlds = {}
        for stage in STUDENT_STAGES:
            if self._has_weights(stage):
                network = Transformer(world.transformer.config)
                network.load_state_dict(load_product(self.folder / stage)[0])
                # the codec is shared: same dtype and device, or it would be moved from under `world`
                worlds[stage] = World(
                    world.card,
                    world.codec,
                    network,
                    self.preset.stage_sampler(stage),
                    dtype=world.dtype,
                    device=world.device,
                )
        return worlds

    def _train(self, stage: str, task: Task, config: TrainerConfig) -> bool:
        folder = self.folder / stage
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "preset.json").write_text(json.dumps(asdict(self.preset), indent=1) + "\n")
        return Trainer(task, config, folder).run(stop_after_s=self.stop_after_s, quiet=self.quiet)
