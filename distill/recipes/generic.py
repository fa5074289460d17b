"""Recipes that fit any environment."""

from __future__ import annotations

from dataclasses import replace

from distill.codec.decoder_finetuning import DecoderFinetuningConfig
from distill.codec.losses import DECODER_LOSS, CodecLossConfig
from distill.data.collect import CollectConfig
from distill.recipes.preset import WORLD_SELF_FORCING, Preset
from distill.tasks.causal_consistency import ConsistencyConfig
from distill.tasks.teacher import TeacherConfig
from distill.tasks.teacher_forcing import TeacherForcingConfig
from distill.training.trainer import TrainerConfig


def quick(environment: str) -> Preset:
    """Return a preset that takes under an hour on two CPU cores: 64×64 frames, a small model, few steps."""
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
    """Return a preset that runs every stage for a few steps. Its only use is to show that training runs."""
    steps = TrainerConfig(num_steps=3, warmup_steps=1, save_every=2, log_every=1)
    return replace(
        quick(environment),
        collect=CollectConfig(environment=environment, num_train=3, num_heldout=2, frames_per_stream=60),
        codec_widths=(8, 8, 8),
        codec_loss=CodecLossConfig(batch_size=4),
        decoder_loss=replace(DECODER_LOSS, batch_size=4),
        codec_trainer=steps,
        decoder_trainer=steps,
        state_estimator_trainer=steps,
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
        distilled=replace(WORLD_SELF_FORCING, batch_size=2, rollout_frames=8, new_frames=(2, 4)),
        distilled_trainer=steps,
        decoder_finetuning=DecoderFinetuningConfig(batch_size=2, num_latents=4),
        decoder_finetuning_trainer=steps,
    )
