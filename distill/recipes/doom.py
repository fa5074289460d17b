"""The recipe of Doom."""

from __future__ import annotations

from dataclasses import replace

from distill.codec.decoder_finetuning import DecoderFinetuningConfig
from distill.codec.losses import CodecLossConfig
from distill.data.collect import CollectConfig
from distill.recipes.preset import WORLD_SELF_FORCING, Preset
from distill.tasks.causal_consistency import ConsistencyConfig
from distill.tasks.context_corruption import ContextCorruption, LevelConfig
from distill.tasks.teacher import TeacherConfig
from distill.tasks.teacher_forcing import TeacherForcingConfig
from distill.training.trainer import TrainerConfig


def doom() -> Preset:
    """Return the preset of Doom's rooms in first person: hours on two CPU cores. The camera moves, so every part of a
    picture has the same weight; nothing else moves, so hardly any of the play stands still."""
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
            corruption=ContextCorruption(faded_share=0.25, lost_share=0.25),
        ),
        student_from="warm_up",
        teacher_forced_trainer=TrainerConfig(num_steps=7000, lr=6e-4, ema_decay=0.998, decay_share=0.5),
        decoder_finetuning=DecoderFinetuningConfig(levels=LevelConfig(shift=6.0)),
        decoder_finetuning_trainer=TrainerConfig(num_steps=5800, lr=7e-4, ema_decay=0.995, decay_share=0.6),
        shipped_stage="teacher_forced",
        few_step=ConsistencyConfig(batch_size=8, first_loss_frame=4, change_weight=0.0, rest_weight=0.0),
        few_step_trainer=TrainerConfig(num_steps=600, lr=1e-4, ema_decay=0.98, warmup_steps=20),
        distilled=replace(WORLD_SELF_FORCING, causal_scores=True),
        compile_blocks=True,
        distilled_trainer=TrainerConfig(
            num_steps=600, lr=5e-5, betas=(0.0, 0.99), ema_decay=0.98, warmup_steps=20, save_every=25, log_every=5
        ),
    )
