"""Everything that makes one world, as data. Owns the presets; runs nothing."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from distill.codec import DECODER_LOSS, CodecLossConfig
from distill.collect import CollectConfig
from distill.environments.base import EnvironmentSpec
from distill.finish import FinishConfig
from distill.given_context import ContextConfig, LevelConfig
from distill.self_forcing_task import SelfForcingConfig
from distill.stages import ConsistencyConfig, TeacherConfig, TeacherForcingConfig
from distill.tracking import TrackerConfig
from distill.trainer import TrainerConfig
from world.codec import CodecConfig
from world.config import TransformerConfig
from world.model import Sampler

STAGES = (
    "collect",
    "codec",
    "decoder",
    "latents",
    "tracker",
    "warm_up",
    "teacher",
    "teacher_forced",
    "few_step",
    "distilled",
    "finish",
    "export",
)
"""In order; each has a folder of its name in the world's run."""


STUDENT_STAGES = ("warm_up", "teacher_forced", "few_step", "distilled")
"""Those that make a causal student; the last two make it a few-step one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Preset:
    """A world's recipe: data, model shape and one trainer per stage."""

    collect: CollectConfig
    codec_channels: int = 8
    codec_widths: tuple[int, int, int] = (48, 80, 112)
    codec_loss: CodecLossConfig = field(default_factory=CodecLossConfig)
    decoder_loss: CodecLossConfig = DECODER_LOSS
    codec_trainer: TrainerConfig
    decoder_trainer: TrainerConfig | None = None
    codec_episodes: int = 60
    tracker: TrackerConfig = field(default_factory=TrackerConfig)
    tracker_trainer: TrainerConfig = field(default_factory=lambda: TrainerConfig(num_steps=3000, lr=1e-3))
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
        default_factory=lambda: TeacherForcingConfig(batch_size=8, first_loss_frame=6, context=ContextConfig())
    )
    teacher_forced_trainer: TrainerConfig
    student_from: str = "teacher"
    few_step: ConsistencyConfig = field(default_factory=lambda: ConsistencyConfig(batch_size=8, first_loss_frame=6))
    few_step_trainer: TrainerConfig
    distilled: SelfForcingConfig = field(default_factory=SelfForcingConfig)
    distilled_trainer: TrainerConfig
    finish: FinishConfig = field(default_factory=FinishConfig)
    finish_trainer: TrainerConfig | None = None
    shipped_stage: str = "distilled"
    compile_blocks: bool = False
    sampler: Sampler = field(default_factory=Sampler)
    early_sampler: Sampler = field(default_factory=lambda: Sampler(num_steps=2, renoise=False))

    def stage_sampler(self, stage: str) -> Sampler:
        """How a stage's student denoises: few-step students re-noise, earlier ones follow the ODE."""
        return self.sampler if stage in ("few_step", "distilled") else self.early_sampler

    def codec_config(self, spec: EnvironmentSpec) -> CodecConfig:
        return CodecConfig(
            height=spec.height,
            width=spec.width,
            channels=self.codec_channels,
            widths=self.codec_widths,
            tracked=spec.tracked,
        )

    def transformer_config(self, spec: EnvironmentSpec) -> TransformerConfig:
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


def pong() -> Preset:
    """The shipped world: hours on two CPU cores. Its best student is the teacher-forced one (see `docs/log.md`)."""
    return Preset(
        collect=CollectConfig(environment="pong", num_train=240, num_heldout=80, frames_per_stream=1500),
        codec_trainer=TrainerConfig(num_steps=5000, lr=1e-3, ema_decay=0.998),
        decoder_trainer=TrainerConfig(num_steps=8000, lr=1e-3, ema_decay=0.998, decay_share=0.6),
        warm_up_trainer=TrainerConfig(num_steps=2000, lr=1e-3, ema_decay=0.995, decay_share=0.5, final_lr_share=0.2),
        teacher_trainer=TrainerConfig(num_steps=4000, lr=6e-4, ema_decay=0.998),
        teacher_forced_trainer=TrainerConfig(num_steps=3700, lr=4e-4, ema_decay=0.998),
        shipped_stage="teacher_forced",
        few_step_trainer=TrainerConfig(num_steps=300, lr=1e-4, ema_decay=0.98, warmup_steps=20),
        distilled_trainer=TrainerConfig(
            num_steps=300, lr=5e-5, betas=(0.0, 0.99), ema_decay=0.98, warmup_steps=20, save_every=25, log_every=5
        ),
    )


def doom() -> Preset:
    """First person, in Doom's rooms: hours on two CPU cores. The camera moves, so all of a picture counts alike; and
    nothing else moves, so that hardly any of the play is standing still."""
    codec_loss = CodecLossConfig(change_weight=0.0, edge_weight=2.0, latent_noise=0.1)
    return Preset(
        collect=CollectConfig(
            environment="doom",
            num_train=140,
            num_heldout=64,
            frames_per_stream=1500,
            height=48,
            width=80,
            skilled_share=0.67,
            random_share=0.32,
        ),
        codec_channels=32,
        codec_widths=(72, 112, 176),
        codec_loss=codec_loss,
        decoder_loss=replace(codec_loss, decoder_noise=0.05, texture_weight=96.0),
        codec_trainer=TrainerConfig(num_steps=3000, lr=1e-3, ema_decay=0.998),
        dim=256,
        ffn_dim=768,
        num_heads=4,
        window_frames=11,
        warm_up_clip_frames=12,
        student_clip_frames=18,
        warm_up=TeacherForcingConfig(batch_size=16, levels=LevelConfig(shift=3.0), change_weight=0.0, rest_weight=0.0),
        warm_up_trainer=TrainerConfig(num_steps=2400, lr=1e-3, ema_decay=0.998, decay_share=0.5, final_lr_share=0.2),
        teacher=TeacherConfig(levels=LevelConfig(shift=3.0), change_weight=0.0, rest_weight=0.0),
        teacher_trainer=TrainerConfig(num_steps=1000, lr=4e-4, ema_decay=0.99),
        teacher_forced=TeacherForcingConfig(
            batch_size=12,
            levels=LevelConfig(shift=3.0),
            change_weight=0.0,
            rest_weight=0.0,
            first_loss_frame=4,
            context=ContextConfig(faded_share=0.25, lost_share=0.25),
        ),
        student_from="warm_up",
        teacher_forced_trainer=TrainerConfig(num_steps=7000, lr=6e-4, ema_decay=0.998, decay_share=0.5),
        finish=FinishConfig(levels=LevelConfig(shift=6.0)),
        finish_trainer=TrainerConfig(num_steps=5800, lr=7e-4, ema_decay=0.995, decay_share=0.6),
        shipped_stage="teacher_forced",
        few_step=ConsistencyConfig(batch_size=8, first_loss_frame=4, change_weight=0.0, rest_weight=0.0),
        few_step_trainer=TrainerConfig(num_steps=600, lr=1e-4, ema_decay=0.98, warmup_steps=20),
        distilled=SelfForcingConfig(causal_scores=True),
        compile_blocks=True,
        distilled_trainer=TrainerConfig(
            num_steps=600, lr=5e-5, betas=(0.0, 0.99), ema_decay=0.98, warmup_steps=20, save_every=25, log_every=5
        ),
    )


def quick(environment: str) -> Preset:
    """Any environment in under an hour of two CPU cores: 64×64 frames, a small model, few steps."""
    return Preset(
        collect=CollectConfig(environment=environment, num_train=40, num_heldout=10, frames_per_stream=500),
        codec_trainer=TrainerConfig(num_steps=2500, lr=1e-3, ema_decay=0.998),
        decoder_trainer=TrainerConfig(num_steps=700, lr=7e-4, ema_decay=0.998, decay_share=0.6),
        dim=128,
        ffn_dim=384,
        num_heads=2,
        window_frames=11,
        warm_up_clip_frames=12,
        student_clip_frames=18,
        warm_up_trainer=TrainerConfig(num_steps=1500, lr=1e-3, ema_decay=0.995, decay_share=0.5, final_lr_share=0.2),
        teacher_trainer=TrainerConfig(num_steps=800, lr=5e-4, ema_decay=0.99),
        teacher_forced_trainer=TrainerConfig(num_steps=800, lr=4e-4, ema_decay=0.99),
        few_step_trainer=TrainerConfig(num_steps=150, lr=1e-4, ema_decay=0.98, warmup_steps=20),
        distilled_trainer=TrainerConfig(
            num_steps=100, lr=5e-5, betas=(0.0, 0.99), ema_decay=0.95, warmup_steps=10, save_every=25, log_every=5
        ),
    )


def smoke(environment: str) -> Preset:
    """Every stage for a few steps: proves that the pipeline runs, makes nothing worth playing."""
    steps = TrainerConfig(num_steps=3, warmup_steps=1, save_every=2, log_every=1)
    return replace(
        quick(environment),
        collect=CollectConfig(environment=environment, num_train=3, num_heldout=2, frames_per_stream=60),
        codec_widths=(8, 8, 8),
        codec_loss=CodecLossConfig(batch_size=4),
        decoder_loss=replace(DECODER_LOSS, batch_size=4),
        codec_trainer=steps,
        decoder_trainer=steps,
        tracker_trainer=steps,
        dim=32,
        ffn_dim=32,
        num_layers=2,
        num_heads=1,
        window_frames=5,
        warm_up_clip_frames=6,
        student_clip_frames=8,
        teacher=TeacherConfig(batch_size=2),
        warm_up_trainer=steps,
        teacher_trainer=steps,
        warm_up=TeacherForcingConfig(batch_size=2),
        teacher_forced=TeacherForcingConfig(batch_size=2),
        teacher_forced_trainer=steps,
        few_step=ConsistencyConfig(batch_size=2),
        few_step_trainer=steps,
        distilled=SelfForcingConfig(batch_size=2, rollout_frames=8, new_frames=(2, 4)),
        distilled_trainer=steps,
        finish=FinishConfig(batch_size=2, num_latents=4),
        finish_trainer=steps,
    )


PRESETS = {"pong": pong, "doom": doom}
GENERIC_PRESETS = {"quick": quick, "smoke": smoke}
