"""`lightcone collect`: record play, or import a folder of videos. Owns how flags change the recipe."""

from __future__ import annotations

import argparse
import logging
from dataclasses import replace

from distill.cli.numbers import require_at_least, require_multiple
from distill.data.clips import Dataset, require_clips
from distill.data.collect import collect
from distill.recipes.choice import choose
from distill.recipes.folders import require_writable, world_run
from world.errors import LightconeError

SIZE_FACTOR = 16
"""Frames of the convolutional codec have sides that are multiples of it."""


def run(args: argparse.Namespace) -> int:
    """Record what is missing, check that a world can be trained on it, and print where it is."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    require_at_least(1, args, "streams", "frames")
    require_multiple(SIZE_FACTOR, args, "height", "width")
    name, preset = choose(args.world, args.env, None, args.name, videos=args.videos)
    data = world_run(name) / "data"
    require_writable(data)
    if args.videos is not None:
        from distill.data.environments.video import import_videos  # loads the video libraries

        size = {"height": args.height, "width": args.width}
        dataset = import_videos(args.videos, data, **size, fps=args.fps, min_frames=args.min_frames)
    else:
        for flag, value in (("--fps", args.fps), ("--min-frames", args.min_frames)):
            if value is not None:
                raise LightconeError(f"{flag} {value:g}: leave it out, or give --videos; it is about videos only")
        config = preset.collect
        if args.env is not None:
            config = replace(config, height=args.height, width=args.width)
        if args.streams is not None:
            config = replace(config, num_train=args.streams)
        if args.frames is not None:
            config = replace(config, frames_per_stream=args.frames)
            if args.frames <= preset.longest_clip_frames:  # no action led to the first frame of a stream
                raise LightconeError(
                    f"--frames {args.frames}: must be at least {preset.longest_clip_frames + 1}, which training needs"
                )
        collect(data, config)
        dataset = Dataset.open(data)
    require_clips(dataset, preset.longest_clip_frames)
    print(f"recorded to {data}; `lightcone train {name}` continues from there")
    return 0
