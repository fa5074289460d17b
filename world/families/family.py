"""What sets one transformer checkpoint apart from another: its config, its network, its weight names.

Owns the translation between a family's names on disk and ours; reads no files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

from world.format_1 import fields_to_disk
from world.model.config import TransformerConfig
from world.model.transformer import Transformer

_T = TypeVar("_T")


def _config_from_json(fields: Mapping[str, Any]) -> TransformerConfig:
    return TransformerConfig(**fields)


def _config_to_json(config: TransformerConfig) -> dict[str, Any]:
    return fields_to_disk(asdict(config))


@dataclass(frozen=True, kw_only=True, slots=True)
class Family:
    """A transformer family; the defaults are those of our own checkpoints.

    config_from_json: the config from the entry `transformer` of `world.json`; raises KeyError or TypeError if that is
    malformed. config_to_json: its inverse. build: the network of a config, with initial weights. weight_names: prefix
    of a weight's name on disk → prefix in `Transformer`, in whole dotted parts, where `*` stands for a block's number
    (`{"layers.*.ffn.0": "blocks.*.ffn_in"}`). Names without an entry are the same in both.
    """

    config_from_json: Callable[[Mapping[str, Any]], TransformerConfig] = _config_from_json
    config_to_json: Callable[[TransformerConfig], dict[str, Any]] = _config_to_json
    build: Callable[[TransformerConfig], Transformer] = Transformer
    weight_names: Mapping[str, str] = field(default_factory=dict)

    def weights_from_disk(self, weights: Mapping[str, _T]) -> dict[str, _T]:
        """Rename weights read from a file."""
        return {_renamed(name, self.weight_names): value for name, value in weights.items()}

    def weights_to_disk(self, weights: Mapping[str, _T]) -> dict[str, _T]:
        """Rename weights before they are written; the inverse of `weights_from_disk`."""
        on_disk = {ours: theirs for theirs, ours in self.weight_names.items()}
        return {_renamed(name, on_disk): value for name, value in weights.items()}


def _renamed(name: str, prefixes: Mapping[str, str]) -> str:
    parts = name.split(".")
    for prefix, other in prefixes.items():
        pattern = prefix.split(".")
        if len(pattern) > len(parts) or any(p not in ("*", part) for p, part in zip(pattern, parts, strict=False)):
            continue
        numbers = iter([part for p, part in zip(pattern, parts, strict=False) if p == "*"])
        return ".".join([*(next(numbers) if p == "*" else p for p in other.split(".")), *parts[len(pattern) :]])
    return name
