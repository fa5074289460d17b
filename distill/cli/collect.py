"""`lightcone collect`: record play, or take in a folder of videos. Owns the arguments only."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from distill.data.collect import collect
from distill.recipes.choice import choose
from distill.recipes.folders import world_run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("world", nargs="?", help="a world with a preset, such as pong")
    parser.add_argument("--env", help="instead: any Gymnasium id, or bouncer")
    parser.add_argument("--videos", type=Path, help="instead: a folder of videos (clip.mp4 with clip.actions.jsonl)")
    parser.add_argument("--name", help="name of the world (default: the environment's or the folder's)")
    parser.add_argument("--streams", type=int, help="training streams to record")
    parser.add_argument("--frames", type=int, help="frames of each stream")
    parser.add_argument("--height", type=int, default=64, help="frame height for --env and --videos")
    parser.add_argument("--width", type=int, default=64, help="frame width for --env and --videos")


def run(args: argparse.Namespace) -> int:
    name, preset = choose(args.world, args.env, "quick", args.name, videos=args.videos)
    data = world_run(name) / "data"
    if args.videos is not None:
        from distill.data.environments.video import import_videos

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
    print(f"recorded to {data}; `lightcone train {name}` goes on from there")
    return 0
