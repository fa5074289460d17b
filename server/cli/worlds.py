"""`lightcone worlds`. Owns the listing of servable worlds, for people and as JSON."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from world.card import WorldCard


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of the listing."""
    parser.add_argument("--json", action="store_true", help="print an array of the worlds' cards, each with its path")


def run(args: argparse.Namespace) -> int:
    """Prints the worlds by name. Exit code 0 also where there is none: that is an answer."""
    from world.catalogue import read_card, roots, worlds  # here, since it loads torch

    cards = {path: read_card(path) for path in worlds().values()}
    if args.json:
        print(json.dumps([{**card.to_json(), "path": str(path)} for path, card in cards.items()], indent=2))
    elif not cards:
        print(f"no worlds in {', '.join(map(str, roots()))}; make one with `lightcone train --help`")
    for path, card in cards.items() if not args.json else ():
        print(f"{path.name:<16}{describe(card)}\n{'':<16}{path}")
    return 0


def describe(card: WorldCard) -> str:
    """Title, size, rate and buttons in one line."""
    controls = ", ".join([button.label for button in card.buttons] + [axis.label for axis in card.axes])
    return f"{card.title}: {card.width}x{card.height} at {card.fps:g} frames/s; controls: {controls or 'none'}"
