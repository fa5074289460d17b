"""In what Pong's students drift: `python -m benchmarks.distillation.pong_drift`, after `lightcone bench distill --parts
pong` (which is quicker than waiting for their training here). Owns nothing but this view: for every student, the four
statistics that `drift_max` is the largest of, and how the one that is farthest off moves from window to window.
"""

from __future__ import annotations

import argparse
import json

import numpy as np
import torch

from benchmarks.distillation.pong_comparison import PongComparison, PongSetting
from distill.evaluation.drift import STATISTICS, clip_statistics, drift_figures
from distill.runs import runs_root


def main() -> None:
    parser = argparse.ArgumentParser(description="print in what Pong's students drift over 1,000 frames")
    parser.add_argument("--steps", type=int, nargs="+", default=[2], help="denoising steps (default: 2)")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    comparison = PongComparison(runs_root() / "benchmarks" / "pong", PongSetting())
    streams, num = comparison.streams, comparison.streams.context
    real = streams.real.mean(axis=(0, 1))
    print(json.dumps({"of": "real play", **dict(zip(STATISTICS, real.round(3).tolist(), strict=True))}))
    for contender in comparison.students():
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
                    }
                ),
                flush=True,
            )


if __name__ == "__main__":
    main()
