"""The recipe of one world, as data. Owns the `Preset` type; runs nothing."""

from __future__ import annotations

from dataclasses import dataclass, field

from distill.codec.decoder_finetuning import DecoderFinetuningConfig
from distill.codec.losses import DECODER_LOSS, CodecLossConfig
from distill.codec.state_estimator import StateEstimatorConfig
from distill.data.collect import CollectConfig
from distill.data.environments.base import EnvironmentSpec
from distill.tasks.causal_consistency import ConsistencyConfig
from distill.tasks.context_corruption import ContextCorruption
from distill.tasks.self_forcing import SelfForcingConfig
from distill.tasks.teacher import TeacherConfig
from distill.tasks.teacher_forcing import TeacherForcingConfig
from distill.training.trainer import TrainerConfig
from world.codecs.convolutional import ConvolutionalCodecConfig
from world.model.config import TransformerConfig
from world.rollout.networks import Sampler

WORLD_SELF_FORCING = SelfForcingConfig(
    fresh_rollouts=False, critic_updates=3, critic_lr_share=2.0, sigma_range=(0.2, 0.98)
)
"""Self-Forcing of worlds on two CPU cores, where rollouts are dear and the teacher knows little of low noise levels
(docs/log.md, 2026-11-30)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Preset:
    """A world's recipe: data, model shape, and per stage its settings and its trainer.

    Stages without a trainer (`decoder_trainer`, `decoder_finetuning_trainer`) are left out. student_from: the stage
    whose network `teacher_forced` starts from. shipped_stage: the stage whose student is exported. compile_blocks:
    compile the networks that are trained longest. sampler, early_sampler: see `stage_sampler`.
    """

    collect: CollectConfig
    codec_channels: int = 8
    codec_widths: tuple[int, int, int] = (48, 80, 112)
    codec_loss: CodecLossConfig = field(default_factory=CodecLossConfig)
    decoder_loss: CodecLossConfig = DECODER_LOSS
    codec_trainer: TrainerConfig
    decoder_trainer: TrainerConfig | None = None
    codec_episodes: int = 60
    state_estimator: StateEstimatorConfig = field(default_factory=StateEstimatorConfig)
    state_estimator_trainer: TrainerConfig = field(default_factory=lambda: TrainerConfig(num_steps=3000, lr=1e-3))
    dim: int = 192
    ffn_dim: int = 576
    num_layers: int = 6
    num_heads: int = 3
    window_frames: int = 15
    warm_up_clip_frames: int = 16
    student_clip_frames: int = 24
    warm_up_trainer: TrainerConfig
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    teacher_trainer: TrainerConfig
    warm_up: TeacherForcingConfig = field(default_factory=TeacherForcingConfig)
    teacher_forced: TeacherForcingConfig = field(
        default_factory=lambda: TeacherForcingConfig(batch_size=8, first_loss_frame=6, corruption=ContextCorruption())
    )
    teacher_forced_trainer: TrainerConfig
    student_from: str = "teacher"
    few_step: ConsistencyConfig = field(default_factory=lambda: ConsistencyConfig(batch_size=8, first_loss_frame=6))
    few_step_trainer: TrainerConfig
    distilled: SelfForcingConfig = WORLD_SELF_FORCING
    distilled_trainer: TrainerConfig
    decoder_finetuning: DecoderFinetuningConfig = field(default_factory=DecoderFinetuningConfig)
    decoder_finetuning_trainer: TrainerConfig | None = None
    shipped_stage: str = "distilled"
    compile_blocks: bool = False
    sampler: Sampler = field(default_factory=Sampler)
    early_sampler: Sampler = field(default_factory=lambda: Sampler(num_steps=2, renoise=False))

    @property
    def longest_clip_frames(self) -> int:
        """The frames of the longest clip that a stage trains on."""
        return max(self.warm_up_clip_frames, self.window_frames + 1, self.student_clip_frames)

    def stage_sampler(self, stage: str) -> Sampler:
        """Return how a stage's student denoises: few-step students re-noise, earlier ones follow the ODE."""
        return self.sampler if stage in ("few_step", "distilled") else self.early_sampler

    def codec_config(self, spec: EnvironmentSpec) -> ConvolutionalCodecConfig:
        """Return the shape of the codec for an environment."""
        return ConvolutionalCodecConfig(
            height=spec.height,
            width=spec.width,
            channels=self.codec_channels,
            widths=self.codec_widths,
            state_variables=spec.state_variables,
        )

    def transformer_config(self, spec: EnvironmentSpec) -> TransformerConfig:
        """Return the shape of teacher and student for an environment."""
        channels, height, width = self.codec_config(spec).latent_shape
        return TransformerConfig(
            channels=channels,
            height=height,
            width=width,
            dim=self.dim,
            ffn_dim=self.ffn_dim,
            num_layers=self.num_layers,
            num_heads=self.num_heads,
            num_buttons=len(spec.buttons),
            num_axes=len(spec.axes),
            window_frames=self.window_frames,
        )
