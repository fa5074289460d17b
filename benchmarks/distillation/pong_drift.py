"""Details of the drift of Pong's students: `python -m benchmarks.distillation.pong_drift`.

Run it after `lightcone bench distill --parts pong`, which trains the students. For every student it prints the four
statistics of which `drift_max` is the largest, the course of the worst one over the windows, and the motion in each
part of the picture: the score, the left side (the opponent), the field and the right side (the player).
"""

from __future__ import annotations

import argparse
import json

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.distillation.pong_comparison import PongComparison, PongSetting
from distill.data.statistics import STATISTICS, clip_statistics
from distill.evaluation.drift import drift_figures
from distill.recipes.folders import world_run

SCORE_ROWS, LEFT_COLUMNS, RIGHT_COLUMNS = 12, 12, 12


def motion_by_place(clips: NDArray[np.uint8]) -> dict[str, float]:
    """Return the parts of the motion of clips uint8 `n t h w 3`, which add up to that of `frame_statistics`."""
    places = {"score": 0.0, "left": 0.0, "field": 0.0, "right": 0.0}
    for clip in clips:
        x = clip.astype(np.float32)
        change = np.abs(x[1:] - x[:-1]).mean(axis=(0, 3)) / clip[0, :, :, 0].size  # h w
        below = change[SCORE_ROWS:]
        places["score"] += float(change[:SCORE_ROWS].sum())
        places["left"] += float(below[:, :LEFT_COLUMNS].sum())
        places["field"] += float(below[:, LEFT_COLUMNS:-RIGHT_COLUMNS].sum())
        places["right"] += float(below[:, -RIGHT_COLUMNS:].sum())
    return {place: round(motion / len(clips), 4) for place, motion in places.items()}


def main() -> None:
    """Print one JSON object for real play and one per student and number of steps."""
    parser = argparse.ArgumentParser(description="print details of the drift of Pong's students over 1,000 frames")
    parser.add_argument("--steps", type=int, nargs="+", default=[2], help="denoising steps (default: 2)")
    parser.add_argument("--students", nargs="+", help="names of the students (default: all)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: 1)")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    comparison = PongComparison(world_run("benchmarks") / "pong", PongSetting())
    streams, num = comparison.streams, comparison.streams.context
    real = streams.real.mean(axis=(0, 1))
    usual = dict(zip(STATISTICS, real.round(3).tolist(), strict=True))
    print(json.dumps({"of": "real play", **usual, "motion by place": motion_by_place(streams.frames[:, num:].numpy())}))
    for contender in comparison.students():
        if args.students is not None and contender.name not in args.students:
            continue
        contender.train()
        for num_steps in args.steps:
            generate = contender.generator(num_steps)
            clips = generate(streams.frames[:, :num], streams.actions.frames(0, num), streams.actions.frames(num))
            windows = np.stack([clip_statistics(clip) for clip in clips.numpy()])  # clip window statistic
            figures = drift_figures(windows, streams.real)
            worst = max(range(len(STATISTICS)), key=lambda i: figures[f"drift_{STATISTICS[i]}"])
            print(
                json.dumps(
                    {
                        "student": contender.name,
                        "steps": num_steps,
                        **{name: round(value, 3) for name, value in figures.items()},
                        f"{STATISTICS[worst]} by window": windows[:, :, worst].mean(0).round(3).tolist(),
                        "motion by place": motion_by_place(clips.numpy()),
                    }
                ),
                flush=True,
            )


if __name__ == "__main__":
    main()
