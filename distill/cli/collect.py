"""`lightcone collect`: record play, or import a folder of videos. Owns how flags change the recipe."""

from __future__ import annotations

import argparse
from dataclasses import replace

from distill.data.collect import collect
from distill.recipes.choice import choose
from distill.recipes.folders import world_run


def run(args: argparse.Namespace) -> int:
    """Record what is missing and print where it is."""
    name, preset = choose(args.world, args.env, "quick", args.name, videos=args.videos)
    data = world_run(name) / "data"
    if args.videos is not None:
        from distill.data.environments.video import import_videos  # loads the video libraries

        import_videos(args.videos, data, height=args.height, width=args.width)
    else:
        config = preset.collect
        if args.env is not None:
            config = replace(config, height=args.height, width=args.width)
        if args.streams is not None:
            config = replace(config, num_train=args.streams)
        if args.frames is not None:
            config = replace(config, frames_per_stream=args.frames)
        collect(data, config)
    print(f"recorded to {data}; `lightcone train {name}` continues from there")
    return 0
