"""A world: codec, transformer and card, ready to play. Owns loading, saving and dtype; knows no socket, no training.

A checkpoint is a folder: `world.json` (format version, card, configs, sampler, and the names of codec, transformer
family and text encoder), `codec.safetensors`, one `<role>.safetensors` per transformer (teacher, student), all in 16
bits, and `starts.npz` (start contexts).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from world import codecs, families, text
from world.actions import Actions
from world.card import WorldCard
from world.codecs.codec import Codec
from world.device import default_device, has_fast_bf16
from world.errors import ActionError, CheckpointError, RangeError, ShapeError
from world.format_1 import weights_from_disk, weights_to_disk
from world.model.transformer import Transformer
from world.numbers import check_finite
from world.rollout.networks import Model, Sampler
from world.rollout.rollout import Frames, Rollout
from world.starts import Start, load_starts, save_starts
from world.text.encoder import TextEncoder

FORMAT_VERSION = 1

_T = TypeVar("_T")
_Weights = dict[str, Tensor]


class World(Model):
    """Everything a session needs. `rollout(num_slots)` returns empty slots; `start(frames, actions, seed)` one batch.

    family: name of the transformer's family in `world.families.FAMILIES`. text_encoder: turns words into the token
    embeddings that `Rollout.start` takes; None if the world names none. folder: where it was loaded from.
    """

    def __init__(
        self,
        card: WorldCard,
        codec: Codec,
        transformer: Transformer,
        sampler: Sampler,
        starts: Sequence[Start] = (),
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        family: str = families.DEFAULT,
        text_encoder: TextEncoder | None = None,
        folder: Path | None = None,
    ) -> None:
        super().__init__(card, codec, transformer, sampler, dtype=dtype, device=device)
        self.starts = list(starts)
        self.family = family
        self.text_encoder = text_encoder
        self.folder = folder

    def __repr__(self) -> str:
        card = self.card
        buttons, axes = ([item.name for item in items] for items in (card.buttons, card.axes))
        return (
            f"World({card.name!r}, {card.width} x {card.height} at {card.fps:g} frames/s, "
            f"buttons={buttons}, axes={axes}, "
            f"{len(self.starts)} starts, {str(self.dtype).removeprefix('torch.')} on {self.device})"
        )

    @staticmethod
    def load(
        path: str | Path,
        *,
        role: str = "student",
        num_steps: int | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> World:
        """Open a checkpoint folder. dtype: bf16 where that is fast, else float32. Raises CheckpointError."""
        folder = Path(path)
        description = _read_description(folder)
        card = WorldCard.from_json(description["card"])
        family_name = description.get("family", families.DEFAULT)
        family = _named("transformer family", family_name, families.FAMILIES, folder)
        codec_class = _named("codec", description.get("codec_name", codecs.DEFAULT), codecs.CODECS, folder)
        encoder_name = description.get("text_encoder")
        load_encoder = encoder_name and _named("text encoder", encoder_name, text.TEXT_ENCODERS, folder)
        try:
            codec = codec_class.from_json(description["codec"])
            transformer = family.build(family.config_from_json(description["transformer"]))
            sampler = Sampler(**description["sampler"])
        except (KeyError, TypeError, RangeError, ShapeError) as exc:
            raise CheckpointError(f"a config in {folder / 'world.json'} is malformed: {exc}") from exc
        _check_fit(folder, card, codec, transformer)
        _load_weights(codec, folder / "codec.safetensors", weights_from_disk)
        _load_weights(transformer, folder / f"{role}.safetensors", family.weights_from_disk)
        return World(
            card,
            codec,
            transformer,
            sampler if num_steps is None else replace(sampler, num_steps=num_steps),
            load_starts(folder / "starts.npz", card),
            dtype=dtype or (torch.bfloat16 if has_fast_bf16() else torch.float32),
            device=device or default_device(),
            family=family_name,
            text_encoder=load_encoder(folder) if load_encoder else None,
            folder=folder,
        )

    def save(self, path: str | Path, *, role: str = "student", extra: Mapping[str, Transformer] | None = None) -> None:
        """Write the folder: codec, this transformer as `role`, and the roles in `extra`; weights as float16. Raises
        CheckpointError if the codec is not in `world.codecs.CODECS`. Does not copy a text encoder's files."""
        folder = Path(path)
        folder.mkdir(parents=True, exist_ok=True)
        family = families.FAMILIES[self.family]
        description = {
            "format": FORMAT_VERSION,
            "card": self.card.to_json(),
            "codec": self.codec.to_json(),
            "transformer": family.config_to_json(self.transformer.config),
            "sampler": asdict(self.sampler),
            "codec_name": _name_of(self.codec),
            "family": self.family,
            "text_encoder": self.text_encoder and self.text_encoder.name,
        }
        (folder / "world.json").write_text(json.dumps(description, indent=1) + "\n")
        save_file(weights_to_disk(_float16(self.codec)), folder / "codec.safetensors")
        for name, transformer in {role: self.transformer, **(extra or {})}.items():
            save_file(family.weights_to_disk(_float16(transformer)), folder / f"{name}.safetensors")
        save_starts(folder / "starts.npz", self.starts)

    def rollout(self, num_slots: int, *, timeline_chunks: int = 0, int8_cache: bool = False) -> Rollout:
        """Return `num_slots` empty slots; fill them with `Rollout.start` or `restore`."""
        return Rollout(self, num_slots, timeline_chunks=timeline_chunks, int8_cache=int8_cache)

    def start(self, frames: Frames, actions: Actions, seed: int = 0, *, timeline_chunks: int = 0) -> Rollout:
        """Continue from real context: frames uint8 `b t h w 3`, actions `b t`; session i uses seed + i.
        timeline_chunks: how many chunks `Rollout.rewind` can go back at least."""
        rollout = Rollout(self, len(frames), timeline_chunks=timeline_chunks)
        slots = list(range(len(frames)))
        rollout.start(slots, frames, actions, [seed + i for i in slots])
        return rollout

    def actions(self, pressed: str | Sequence[str] | Sequence[Sequence[str]]) -> Actions:
        """Return actions of one frame from button names: `"up"` or `["up"]` for one session, `[["up"], []]` for two."""
        is_one = isinstance(pressed, str) or not pressed or isinstance(pressed[0], str)
        rows: list[Any] = [pressed] if is_one else list(pressed)
        names = [button.name for button in self.card.buttons]
        actions = Actions.none(len(rows), 1, len(names), len(self.card.axes))
        for row, held in enumerate(rows):
            for name in [held] if isinstance(held, str) else held:
                if name not in names:
                    raise ActionError(f"button {name!r}: {self.card.name} has {', '.join(names) or 'none'}")
                actions.buttons[row, 0, names.index(name)] = True
        return actions

    def encode_text(self, words: str) -> Tensor:
        """Return the token embeddings `l text_dim` of a prompt, for `Rollout.start` and `set_text`. Raises
        CheckpointError if this world names no text encoder."""
        if self.text_encoder is None:
            raise CheckpointError(
                f"{self.card.name} names no text encoder in its world.json: pass token embeddings instead of words"
            )
        return self.text_encoder.encode(words)


def _read_description(folder: Path) -> dict[str, Any]:
    try:
        description: dict[str, Any] = json.loads((folder / "world.json").read_text())
    except (FileNotFoundError, NotADirectoryError) as exc:
        raise CheckpointError(
            f"no world at {folder}: it needs a world.json (train one with `lightcone train`)"
        ) from exc
    except json.JSONDecodeError as exc:
        raise CheckpointError(f"{folder / 'world.json'} is not JSON: {exc}") from exc
    version = description.get("format") if isinstance(description, dict) else None
    if version != FORMAT_VERSION:
        raise CheckpointError(f"{folder} has checkpoint format {version!r}, this program reads {FORMAT_VERSION}")
    missing = {"card", "codec", "transformer", "sampler"} - description.keys()
    if missing:
        raise CheckpointError(f"{folder / 'world.json'} lacks {', '.join(sorted(missing))}")
    return description


def _named(what: str, name: str, known: Mapping[str, _T], folder: Path) -> _T:
    if name not in known:
        raise CheckpointError(
            f"{folder / 'world.json'} names the {what} {name!r}; "
            f"this program knows {', '.join(sorted(known)) or 'none'}"
        )
    return known[name]


def _name_of(codec: Codec) -> str:
    for name, codec_class in codecs.CODECS.items():
        if type(codec) is codec_class:
            return name
    raise CheckpointError(f"{type(codec).__name__} is not in world.codecs.CODECS: add it there before saving")


def _load_weights(module: torch.nn.Module, path: Path, rename: Callable[[_Weights], _Weights]) -> None:
    if not path.exists():
        have = ", ".join(sorted(p.stem for p in path.parent.glob("*.safetensors"))) or "none"
        raise CheckpointError(f"no weights at {path}; this world has: {have}")
    try:
        module.load_state_dict(rename(load_file(path)))
    except RuntimeError as exc:
        raise CheckpointError(f"{path} does not fit the config in world.json: {exc}") from exc
    except SafetensorError as exc:
        raise CheckpointError(f"{path} is not a whole safetensors file: {exc}; fetch or train it again") from exc
    try:
        check_finite(module, str(path))
    except RangeError as exc:
        raise CheckpointError(f"{exc}; fetch or train it again") from exc


def _check_fit(folder: Path, card: WorldCard, codec: Codec, transformer: Transformer) -> None:
    """Raise CheckpointError unless card, codec and transformer belong together."""
    config = transformer.config
    pairs = {
        "the transformer's latents `c h w`": ((config.channels, config.height, config.width), codec.latent_shape),
        "its frames per latent": (config.actions_per_frame, codec.temporal_patch),
        "its buttons and axes": ((config.num_buttons, config.num_axes), (len(card.buttons), len(card.axes))),
        "the card's picture": ((card.height, card.width), codec.frame_size or (card.height, card.width)),
    }
    for what, (ours, theirs) in pairs.items():
        if ours != theirs:
            raise CheckpointError(f"{folder / 'world.json'}: {what} are {ours}, the rest of the world says {theirs}")


def _float16(module: torch.nn.Module) -> _Weights:
    """Return the weights as they are stored. Raises CheckpointError if one is not finite in 16 bits."""
    weights = {}
    for name, value in module.state_dict().items():
        weights[name] = value.detach().to("cpu", torch.float16).contiguous()
        if not weights[name].isfinite().all():
            raise CheckpointError(f"{name} of the {type(module).__name__} is not finite in 16 bits: it is not saved")
    return weights
