"""Codecs: pixel frames ↔ latents. `CODECS` names all that `world.json` may use."""

from world.codecs.codec import Codec
from world.codecs.convolutional import ConvolutionalCodec

CODECS: dict[str, type[Codec]] = {"convolutional": ConvolutionalCodec}
"""Name in `world.json` → class. A new codec is its own module and one entry here."""

DEFAULT = "convolutional"
"""The codec of a `world.json` that names none."""
