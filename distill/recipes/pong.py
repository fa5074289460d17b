"""The recipe of Pong."""

from __future__ import annotations

from distill.data.collect import CollectConfig
from distill.recipes.preset import Preset
from distill.training.trainer import TrainerConfig


def pong() -> Preset:
    """Return the preset of the shipped world: hours on two CPU cores. The teacher-forced student is the best one (see
    `docs/log.md`)."""
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
