"""Text encoders: a prompt → token embeddings. `TEXT_ENCODERS` names all that `world.json` may use."""

from collections.abc import Callable
from pathlib import Path

from world.text.encoder import TextEncoder

TEXT_ENCODERS: dict[str, Callable[[Path], TextEncoder]] = {}
"""Name in `world.json` → function that loads the encoder from the checkpoint folder. None is shipped yet."""
