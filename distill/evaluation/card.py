"""The model card of a report. Owns the card's text, its frame strips and its clip; measures nothing."""

from __future__ import annotations

import json
import platform
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from distill.evaluation.evaluate import held_out
from distill.evaluation.generators import student_generator, teacher_generator
from distill.evaluation.starts import held_out_starts
from distill.evaluation.tables import curve_table, gains, number, stage_table
from distill.recipes.preset import Preset
from world.checkpoint import World

CLIP_S, CLIP_SCALE = 10.0, 3
STRIP_EVERY, STRIP_FRAMES, STRIP_CLIPS, STRIP_TEACHER_STEPS = 6, 64, 2, 16


def write_card(folder: Path, world: World, report: dict[str, Any], preset: Preset, run: Path) -> None:
    """Write `report.json`, `strips.png`, `clip.webp` and `README.md` into the checkpoint folder."""
    (folder / "report.json").write_text(json.dumps(report, indent=1) + "\n")
    draw_strips(folder, world, preset, run)
    draw_clip(folder, world, preset, run)
    (folder / "README.md").write_text(card_text(world, report))


def draw_strips(folder: Path, world: World, preset: Preset, run: Path) -> None:
    """Draw every sixth frame of a few held-out starts, one row each: truth, teacher (if there is one) and student."""
    dataset = held_out(world.card, preset, run)
    starts = held_out_starts(dataset, STRIP_CLIPS, world.context_pixel_frames, STRIP_FRAMES)
    generators = [student_generator(world)]
    if (teacher := load_teacher(folder)) is not None:
        generators.insert(0, teacher_generator(teacher, num_steps=STRIP_TEACHER_STEPS, shift=world.sampler.shift))
    rows = []
    generated = [g(starts.context, starts.context_actions, starts.actions) for g in generators]
    for clip in range(STRIP_CLIPS):
        rows += [_strip(frames[clip]) for frames in (starts.truth, *generated)]
    picture = Image.fromarray(np.concatenate(rows, axis=0))
    picture.resize((picture.width * 2, picture.height * 2), Image.Resampling.NEAREST).save(folder / "strips.png")


def draw_clip(folder: Path, world: World, preset: Preset, run: Path) -> None:
    """Draw ten seconds of the student under the actions of a held-out stream as an enlarged animation."""
    fps = world.card.fps
    starts = held_out_starts(held_out(world.card, preset, run), 1, world.context_pixel_frames, round(CLIP_S * fps))
    frames = student_generator(world)(starts.context, starts.context_actions, starts.actions)[0].numpy()
    size = (CLIP_SCALE * world.card.width, CLIP_SCALE * world.card.height)
    pictures = [Image.fromarray(frame).resize(size, Image.Resampling.BICUBIC) for frame in frames]
    pictures[0].save(
        folder / "clip.webp",
        save_all=True,
        append_images=pictures[1:],
        duration=round(1000 / fps),
        loop=0,
        quality=75,
        method=4,
    )


def load_teacher(folder: Path) -> World | None:
    """Load a checkpoint's teacher; return None for a world exported before its teacher was trained."""
    return World.load(folder, role="teacher") if (folder / "teacher.safetensors").exists() else None


def _strip(frames: Tensor) -> np.ndarray:
    return np.concatenate(list(frames[::STRIP_EVERY].numpy()), axis=1)


def _state_variables(world: World) -> list[str]:
    names = [variable.name for variable in world.codec.state_variables]
    if not names:
        return []
    return [
        "",
        f"Besides the picture it models the state variables {', '.join(names)}. Training used their true values; at "
        "the start of a rollout they are estimated from the pictures.",
    ]


def card_text(world: World, report: dict[str, Any]) -> str:
    """Return the card in Markdown."""
    card, config = world.card, world.transformer.config
    count = sum(p.numel() for p in world.transformer.parameters()) / 1e6
    codec_count = sum(p.numel() for p in world.codec.parameters()) / 1e6
    lines = [
        f"# {card.title}",
        "",
        card.description,
        "",
        f"{card.height}×{card.width}, {card.fps:g} frames per second, {world.sampler.num_steps} denoising steps per "
        f"frame. Student and teacher: {count:.2f} million parameters each ({config.num_layers} layers of {config.dim}, "
        f"{config.tokens_per_frame} tokens per frame, window {config.window_frames}); codec: {codec_count:.2f} "
        "million.",
        *_state_variables(world),
        "",
        f"Data: {card.data_license} Made by `{card.provenance.get('command', 'unknown')}`.",
        "",
        f"Measured {date.today().isoformat()} on {platform.machine()}, {torch.get_num_threads()} threads, by "
        f"`lightcone eval {card.name}{' --stages' if 'stages' in report else ''} --card`; the full report is "
        "`report.json`.",
        "",
        "| figure | value |",
        "|---|---|",
    ]
    lines += [f"| {key} | {number(value)} |" for key, value in report.items() if isinstance(value, int | float)]
    lines += [
        f"| {key}, dB (lower bound) | {number(gain['mean'])} ({number(gain['lower'])}) |"
        for key, gain in gains(report).items()
    ]
    lines += ["", "PSNR (dB) of free-running frames, by frame:", "", *curve_table(report), ""]
    if "stages" in report:
        lines += ["Results by training stage, on the same starts:", "", *stage_table(report["stages"]), ""]
    lines += [
        "Every sixth frame of two starts; rows for each: truth, teacher (16 steps; if the world has one), student:",
        "",
        "![strips](strips.png)",
        "",
        "Ten seconds of the student under the actions of a held-out stream:",
        "",
        "![clip](clip.webp)",
        "",
    ]
    return "\n".join(lines)
