"""`lightcone worlds`. Owns the list of worlds that can be served, as text and as JSON."""

from __future__ import annotations

import argparse
import json

from world.card import WorldCard
from world.catalogue import read_card, roots, worlds


def run(args: argparse.Namespace) -> int:
    """Print the worlds by name. The exit code is 0 even if there are none."""
    cards = {path: read_card(path) for path in worlds().values()}
    if args.json:
        print(json.dumps([{**card.to_json(), "path": str(path)} for path, card in cards.items()], indent=2))
    elif not cards:
        print(f"no worlds in {', '.join(map(str, roots()))}; make one with `lightcone train --help`")
    for path, card in cards.items() if not args.json else ():
        print(f"{path.name:<16}{describe(card)}\n{'':<16}{path}")
    return 0


def describe(card: WorldCard) -> str:
    """Return title, size, frame rate and controls in one line."""
    controls = ", ".join([button.label for button in card.buttons] + [axis.label for axis in card.axes])
    return f"{card.title}: {card.width}x{card.height} at {card.fps:g} frames/s; controls: {controls or 'none'}"
