"""Serialise a session's state, and check whether a state fits a world. Knows no files."""

from __future__ import annotations

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from world.errors import ShapeError, StateError
from world.rollout.networks import Model
from world.rollout.replay import history_frames
from world.rollout.timeline import RolloutState

FORMAT = 1
MAX_CHUNKS = 2**48
"""Longer than any session lasts; angles and noise are exact up to this index."""


def to_bytes(state: RolloutState) -> bytes:
    """Write the state as a safetensors file, including its K/V if it has them."""
    numbers = torch.tensor([FORMAT, state.seed, state.next_chunk, state.start_chunk])
    tensors = {
        "numbers": numbers,
        "history": state.history,
        "history_actions": state.history_actions,
        "history_index": torch.tensor(state.history_index),
        **{f"codec.{name}": value for name, value in state.codec.items()},
        **{f"kv.{number}": value for number, value in enumerate(state.kv or ())},
        **({} if state.text is None else {"text": state.text}),
    }
    return save({name: value.contiguous().cpu() for name, value in tensors.items()})


def from_bytes(data: bytes) -> RolloutState:
    """Read what `to_bytes` wrote. Raises StateError; `check_state` says whether the state fits a world."""
    try:
        tensors = load(data)
        version, seed, next_chunk, start_chunk = (int(number) for number in tensors["numbers"].tolist())
        state = RolloutState(
            seed=seed,
            next_chunk=next_chunk,
            start_chunk=start_chunk,
            history=tensors["history"],
            history_actions=tensors["history_actions"],
            history_index=tuple(int(index) for index in tensors["history_index"].tolist()),
            codec={name.removeprefix("codec."): value for name, value in tensors.items() if name.startswith("codec.")},
            kv=tuple(tensors[f"kv.{number}"] for number in range(_num_kv(tensors))) or None,
            text=tensors.get("text"),
        )
    except (SafetensorError, KeyError, ValueError, TypeError, OverflowError) as exc:
        raise StateError(f"{len(data)} bytes are not a saved session ({type(exc).__name__})") from exc
    if version != FORMAT:
        raise StateError(f"the saved session has format {version}, this program reads {FORMAT}")
    return state


def check_state(model: Model, state: RolloutState) -> None:
    """Raise ShapeError unless this can be the state of a rollout of `model`. Does not check its K/V."""
    config = model.transformer.config
    chunk, sink = config.chunk_frames, config.sink_frames
    total = min(state.next_chunk, MAX_CHUNKS) * chunk
    num = min(total, sink + history_frames(config))
    index = (*range(sink), *range(total - num + sink, total))
    first = -(-config.context_frames // chunk)
    if not first <= state.start_chunk <= state.next_chunk <= MAX_CHUNKS or state.history_index != index:
        raise ShapeError(
            f"the state's {len(state.history_index)} frames are not those that {model.card.name} keeps "
            f"before chunk {state.next_chunk}; save it again"
        )
    if state.text is not None:
        fits = state.text.ndim == 2 and 0 < len(state.text) <= config.num_text_tokens
        fits = fits and state.text.shape[1] == config.text_dim and bool(state.text.isfinite().all())
        if not config.text_dim or not fits:
            raise ShapeError(f"the state's text is {tuple(state.text.shape)}; {model.card.name} takes no such text")
    for what, tensor, shape in (
        ("latents", state.history, (num, config.channels, config.height, config.width)),
        ("actions", state.history_actions, (num, config.action_dim)),
    ):
        if tuple(tensor.shape) != shape or tensor.dtype != torch.float32:
            raise ShapeError(
                f"the state's {what} are {tensor.dtype} {tuple(tensor.shape)}; {model.card.name} needs float32 {shape}"
            )
        if not bool(tensor.isfinite().all()):
            raise ShapeError(f"the state's {what} are not all finite; save it again")


def check_codec_state(model: Model, state: RolloutState) -> None:
    """Raise ShapeError unless the state has a codec's state of `model`, with finite values."""
    expected = model.codec.initial_state(1)
    if state.codec.keys() != expected.keys():
        raise ShapeError(f"the codec's state has {sorted(state.codec)}; {model.card.name} needs {sorted(expected)}")
    for name, tensor in expected.items():
        got = state.codec[name]
        if got.shape != tensor.shape or got.is_floating_point() != tensor.is_floating_point():
            raise ShapeError(
                f"the codec's {name} is {got.dtype} {tuple(got.shape)}; {model.card.name} needs {tuple(tensor.shape)}"
            )
        if not bool(got.isfinite().all()):
            raise ShapeError(f"the codec's {name} is not all finite; save it again")


def _num_kv(tensors: dict[str, Tensor]) -> int:
    return sum(name.startswith("kv.") for name in tensors)
