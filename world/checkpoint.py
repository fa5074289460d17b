"""A world: codec, transformer and card, ready to play. Owns loading, saving and dtype; knows no socket, no training.

A checkpoint is a folder: `world.json` (format version, card, configs, sampler), `codec.safetensors`, one
`<role>.safetensors` per transformer (teacher, student), all 16-bit, and `starts.npz` (start contexts).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from world.actions import Actions
from world.card import WorldCard
from world.codecs.convolutional import Codec, CodecConfig
from world.codecs.state_channels import state_variables_from_json
from world.device import default_device, has_fast_bf16
from world.errors import ActionError, CheckpointError
from world.format_1 import fields_from_disk, fields_to_disk, weights_from_disk, weights_to_disk
from world.model.config import TransformerConfig
from world.model.transformer import Transformer
from world.rollout.networks import Model, Sampler
from world.rollout.rollout import Frames, Rollout

FORMAT_VERSION = 1


@dataclass(frozen=True, slots=True)
class Start:
    """A context to start from: frames uint8 `t h w 3`, actions `1 t`."""

    name: str
    frames: Tensor
    actions: Actions


class World(Model):
    """Everything a session needs. `rollout(num_slots)` gives sessions; `start(frames, actions, seed)` one batch."""

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
    ) -> None:
        super().__init__(card, codec, transformer, sampler, dtype=dtype, device=device)
        self.starts = list(starts)

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
        codec_config, transformer_config, sampler = _read_configs(description, folder)
        codec, transformer = Codec(codec_config), Transformer(transformer_config)
        _load_weights(codec, folder / "codec.safetensors")
        _load_weights(transformer, folder / f"{role}.safetensors")
        if num_steps is not None:
            sampler = replace(sampler, num_steps=num_steps)
        starts = _load_starts(folder / "starts.npz")
        dtype = dtype or (torch.bfloat16 if has_fast_bf16() else torch.float32)
        return World(card, codec, transformer, sampler, starts, dtype=dtype, device=device or default_device())

    def save(self, path: str | Path, *, role: str = "student", extra: Mapping[str, Transformer] | None = None) -> None:
        """Write the folder: codec, this transformer as `role`, and any further roles in `extra`; weights as float16."""
        folder = Path(path)
        folder.mkdir(parents=True, exist_ok=True)
        description = {
            "format": FORMAT_VERSION,
            "card": self.card.to_json(),
            "codec": fields_to_disk(asdict(self.codec.config)),
            "transformer": asdict(self.transformer.config),
            "sampler": asdict(self.sampler),
        }
        (folder / "world.json").write_text(json.dumps(description, indent=1) + "\n")
        for name, module in {"codec": self.codec, role: self.transformer, **(extra or {})}.items():
            weights = {
                key: value.detach().to("cpu", torch.float16).contiguous() for key, value in module.state_dict().items()
            }
            save_file(weights_to_disk(weights), folder / f"{name}.safetensors")
        _save_starts(folder / "starts.npz", self.starts)

    def rollout(self, num_slots: int, *, timeline_chunks: int = 0, int8_cache: bool = False) -> Rollout:
        """`num_slots` empty slots; fill them with `Rollout.start` or `restore`."""
        return Rollout(self, num_slots, timeline_chunks=timeline_chunks, int8_cache=int8_cache)

    def start(self, frames: Frames, actions: Actions, seed: int = 0) -> Rollout:
        """Continue from real context: frames uint8 `b t h w 3`, actions `b t`; session i uses seed + i."""
        rollout = Rollout(self, len(frames))
        slots = list(range(len(frames)))
        rollout.start(slots, frames, actions, [seed + i for i in slots])
        return rollout

    def actions(self, pressed: Sequence[str] | Sequence[Sequence[str]]) -> Actions:
        """Actions of one frame from button names: `["up"]` for one session, `[["up"], []]` for two."""
        rows: list[Sequence[str]] = [pressed] if not pressed or isinstance(pressed[0], str) else list(pressed)  # type: ignore[list-item]  # narrowed by the test
        names = [button.name for button in self.card.buttons]
        actions = Actions.none(len(rows), 1, len(names), len(self.card.axes))
        for row, held in enumerate(rows):
            for name in held:
                if name not in names:
                    raise ActionError(f"button {name!r}: {self.card.name} has {', '.join(names) or 'none'}")
                actions.buttons[row, 0, names.index(name)] = True
        return actions


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


def _read_configs(description: dict[str, Any], folder: Path) -> tuple[CodecConfig, TransformerConfig, Sampler]:
    try:
        fields = fields_from_disk(description["codec"])
        state_variables = state_variables_from_json(fields.get("state_variables", ()))
        codec = CodecConfig(**{**fields, "widths": tuple(fields["widths"]), "state_variables": state_variables})
        return codec, TransformerConfig(**description["transformer"]), Sampler(**description["sampler"])
    except (KeyError, TypeError) as exc:
        raise CheckpointError(f"a config in {folder / 'world.json'} is malformed: {exc}") from exc


def _load_weights(module: torch.nn.Module, path: Path) -> None:
    if not path.exists():
        have = ", ".join(sorted(p.stem for p in path.parent.glob("*.safetensors"))) or "none"
        raise CheckpointError(f"no weights at {path}; this world has: {have}")
    try:
        module.load_state_dict(weights_from_disk(load_file(path)))
    except RuntimeError as exc:
        raise CheckpointError(f"{path} does not fit the config in world.json: {exc}") from exc
    except SafetensorError as exc:
        raise CheckpointError(f"{path} is not a whole safetensors file: {exc}; fetch or train it again") from exc


def _load_starts(path: Path) -> list[Start]:
    if not path.exists():
        return []
    with np.load(path) as arrays:
        return [
            Start(
                str(name),
                torch.from_numpy(arrays["frames"][i]),
                Actions(torch.from_numpy(arrays["buttons"][i])[None], torch.from_numpy(arrays["axes"][i])[None]),
            )
            for i, name in enumerate(arrays["names"])
        ]


def _save_starts(path: Path, starts: Sequence[Start]) -> None:
    if starts:
        np.savez_compressed(
            path,
            names=np.array([start.name for start in starts]),
            frames=np.stack([start.frames.numpy() for start in starts]),
            buttons=np.stack([start.actions.buttons[0].numpy() for start in starts]),
            axes=np.stack([start.actions.axes[0].numpy() for start in starts]),
        )
