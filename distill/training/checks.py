"""Whether an update can train its module. Owns the checks and their errors; changes no weight."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from world.errors import LightconeError

MAX_NOT_FINITE = 10
"""Updates of one module in a row that may be skipped because they are not finite."""


class TrainingError(LightconeError):
    """Training cannot go on: a loss does not train its module, or updates are not finite."""


def check_graph(name: str, loss: Tensor, modules: Mapping[str, nn.Module]) -> None:
    """Raise TrainingError unless the loss of module `name` has a gradient, and sends it to that module's weights only.
    modules: those of the task, to name weights by."""
    if not loss.requires_grad:
        raise TrainingError(
            f"the loss of {name} depends on no weight that is trained: its weights are frozen (requires_grad is "
            "False), or the loss was computed without gradient (torch.no_grad, detach)"
        )
    own = {id(weight) for weight in modules[name].parameters()}
    strangers = [weight for weight in weights_of(loss) if id(weight) not in own]
    if strangers:
        raise TrainingError(
            f"the loss of {name} sends gradients to {len(strangers)} weights outside that module, such as "
            f"{_named(strangers[0], modules)}, where nothing would update them. A wrapper that calls its network "
            "through a closure (a lambda that uses `self`) still calls the original after copy.deepcopy: make the "
            "network an attribute and look it up in forward. Freeze networks that are only read: requires_grad_(False)"
        )


def check_reached(name: str, module: nn.Module) -> None:
    """Raise TrainingError if a backward pass left no gradient on any of a module's weights."""
    if all(weight.grad is None for weight in module.parameters()):
        raise TrainingError(
            f"the loss of {name} gives no gradient to any of its weights: they are frozen (requires_grad is False), "
            "or the loss does not depend on them (it calls another network, or a copy)"
        )


def has_gradient(module: nn.Module) -> bool:
    """Return whether any of a module's gradients differs from 0."""
    return any(weight.grad is not None and bool(weight.grad.any()) for weight in module.parameters())


def weights_of(loss: Tensor) -> Iterator[nn.Parameter]:
    """Yield the weights that a loss sends gradients to, as far as its graph shows them."""
    seen, waiting = set(), [loss.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        weight = getattr(node, "variable", None)  # only nodes that accumulate a leaf's gradient have it
        if isinstance(weight, nn.Parameter):
            yield weight
        waiting += [parent for parent, _ in node.next_functions]


def is_finite(module: nn.Module) -> bool:
    """Return whether all weights of a module are finite."""
    return all(map(_is_finite, module.parameters()))


def not_finite(name: str, module: nn.Module, loss: float) -> str:
    """Return what is not finite in an update, in words: the loss, and the first weight or gradient."""
    weights = [key for key, weight in module.named_parameters() if not _is_finite(weight)]
    gradients = [key for key, weight in module.named_parameters() if not _is_finite(weight.grad)]
    kind, tensors = ("weights", weights) if weights else ("gradients", gradients)
    what = f"{len(tensors)} of its {kind} are not finite (first: {tensors[0]})" if tensors else "its gradient overflows"
    return f"the loss of {name} is {loss:.4g}, and {what}"


def _is_finite(value: Tensor | None) -> bool:
    return value is None or bool(torch.isfinite(value).all())


def _named(weight: nn.Parameter, modules: Mapping[str, nn.Module]) -> str:
    for name, module in modules.items():
        for key, own in module.named_parameters():
            if own is weight:
                return f"{name}.{key}"
    return f"one of shape {tuple(weight.shape)}"
