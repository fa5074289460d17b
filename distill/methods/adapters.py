"""Models on other noise scales as a `Network`: EDM, VP/DDPM and TrigFlow. Owns the change of scale; leaves the model
unchanged.

A model of a·x0 + s·noise has sigma = s / (a + s), and its input is x·(a + s) where x is on the flow scale (see
`world.model.schedule`). Any further input of the model must be in `cond`. An adapter is a module, and the model a part
of it: it is trained, copied and saved as one.
"""

from __future__ import annotations

import copy
import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from distill.methods.timesteps import Timesteps
from world.model.patterns import AttentionPattern
from world.model.schedule import add_noise, expand, flow_sigma, velocity_from_x0
from world.model.transformer import Conditioning, Output

Model = nn.Module | Callable[..., Tensor]
"""A network, or any function of the arguments of a `Call`."""

Call = Callable[..., Tensor]
"""(model, x on the model's own scale, its own time `b`, conditioning) → the model's own prediction, of x's shape. With
`flow_map` a fifth argument is the time that the step leads to."""

PredictionType = Literal["epsilon", "v_prediction", "sample"]

LEAST_SIGMA = 1e-6


def call_directly(model: Callable[..., Tensor], *arguments: Any) -> Tensor:
    """Call a model whose own arguments are those of a `Call`."""
    return model(*arguments)


class Adapted(nn.Module, ABC):
    """A `Network` defined by its velocity alone.

    model: becomes a part of the adapter if it is a module. call: how it is called, e.g.
    `lambda unet, x, t, cond: unet(x, t).sample`; it must take the model from its argument, so that a copy of the
    adapter calls its own model. layers: names of the model's parts whose outputs are the features 0, 1, … flow_map:
    `call` also takes the time that the step leads to (`sigma_next`).
    """

    def __init__(
        self, model: Model, call: Call = call_directly, *, layers: Sequence[str] = (), flow_map: bool = False
    ) -> None:
        super().__init__()
        self.model = model
        self.call = call
        self.layers = tuple(layers)
        self.flow_map = flow_map

    @property
    def num_layers(self) -> int:
        """How many layers have features."""
        return len(self.layers)

    @abstractmethod
    def velocity(self, x: Tensor, sigma: Tensor, cond: Conditioning, sigma_next: Tensor | None = None) -> Tensor:
        """Return the velocity on the flow scale: x `b …`, sigma `b`."""

    def forward(
        self,
        x: Tensor,
        sigma: Tensor,
        cond: Conditioning,
        *,
        sigma_next: Tensor | None = None,
        pattern: AttentionPattern | None = None,
        features: tuple[int, ...] = (),
    ) -> Output:
        """Return the velocity and the features that are asked for. Raises ValueError for a pattern, for a `sigma_next`
        or a feature that the adapter was not told how to pass or find, and for a prediction of another shape."""
        if pattern is not None:
            raise ValueError("an adapted model takes no attention pattern: only `Transformer` has one")
        if sigma_next is not None and not self.flow_map:
            raise ValueError("this adapter does not pass sigma_next: give it flow_map=True and a call with `t_next`")
        with self._watched(features) as hidden:
            velocity = self.velocity(x, sigma, cond, sigma_next)
        return Output(velocity, [], hidden)

    def predict(self, x: Tensor, t: Tensor, cond: Conditioning, t_next: Tensor | None = None) -> Tensor:
        """Return the model's own prediction."""
        prediction = self.call(self.model, x, t, cond, *([t_next] if self.flow_map else []))
        if prediction.shape != x.shape:
            raise ValueError(
                f"the model predicts {tuple(prediction.shape)} for an input of {tuple(x.shape)}: if it also predicts a "
                "variance, return only the mean from `call` (prediction.chunk(2, dim=1)[0])"
            )
        return prediction

    @contextmanager
    def _watched(self, features: tuple[int, ...]) -> Iterator[dict[int, Tensor]]:
        """Collect the outputs of the layers `features` inside the block."""
        hidden: dict[int, Tensor] = {}

        def keep(number: int, _module: nn.Module, _inputs: object, output: Any) -> None:
            hidden[number] = output if isinstance(output, Tensor) else output[0]

        with ExitStack() as hooks:
            for number in features:
                if not isinstance(self.model, nn.Module) or number >= len(self.layers):
                    raise ValueError(
                        f"no feature {number}: the adapter has layers={self.layers}; name the model's parts"
                    )
                hook = self.model.get_submodule(self.layers[number]).register_forward_hook(partial(keep, number))
                hooks.callback(hook.remove)
            yield hidden

    def __deepcopy__(self, memo: dict[int, Any]) -> Adapted:
        """Copy the adapter with its model. Raises ValueError if a copy would call the original's network."""
        for function in (self.model, self.call):
            if shared := networks_inside(function):
                raise ValueError(
                    f"a copy of this {type(self).__name__} would call the original's {type(shared[0]).__name__}, since "
                    "its function takes that network from around it: give the adapter the network itself and a `call` "
                    f"that takes it as its argument, as in {type(self).__name__}(network, …, call=lambda network, x, "
                    "t, cond: network(x, t))"
                )
        twin = type(self).__new__(type(self))
        memo[id(self)] = twin
        twin.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return twin


def networks_inside(function: object) -> list[nn.Module]:
    """Return the modules that a Python function takes from the variables around it."""
    if not inspect.isfunction(function):
        return []
    around = inspect.getclosurevars(function)
    values = [*around.nonlocals.values(), *around.globals.values()]
    return [value for value in values if isinstance(value, nn.Module)]


class EDM(Adapted):
    """A denoiser D(x0 + s·noise, s) → x0 that includes its preconditioning (arXiv:2206.00364, eq. 7).

    s_max: the highest noise level it was trained for; higher levels are clamped to it. Other arguments: see `Adapted`.
    """

    def __init__(self, model: Model, s_max: float = 80.0, call: Call = call_directly, **options: Any) -> None:
        super().__init__(model, call, **options)
        if not 0 < s_max < float("inf"):
            raise ValueError(f"s_max {s_max}: must be positive and finite")
        self.s_max = s_max

    def velocity(self, x: Tensor, sigma: Tensor, cond: Conditioning, sigma_next: Tensor | None = None) -> Tensor:
        sigma = self._clamped(sigma)
        s_next = None if sigma_next is None else self._s(self._clamped(sigma_next))
        s = self._s(sigma)
        return velocity_from_x0(x, self.predict(x * expand(1 + s, x), s, cond, s_next), sigma)

    def _clamped(self, sigma: Tensor) -> Tensor:
        return sigma.clamp(LEAST_SIGMA, self.s_max / (1 + self.s_max))

    @staticmethod
    def _s(sigma: Tensor) -> Tensor:
        return sigma / (1 - sigma)


class VP(Adapted):
    """A DDPM-like model of √ᾱ·x0 + √(1−ᾱ)·noise that predicts noise (`epsilon`), `v_prediction` = √ᾱ·noise − √(1−ᾱ)·x0
    (arXiv:2202.00512) or x0 (`sample`).

    alphas_cumprod: ᾱ by timestep, decreasing, `t`. By default timesteps are integers: sigma is rounded to the level of
    the nearest one, and x is rescaled to the expected scale of that level; a derivative in time does not exist, and
    asking for it (sCM, MeanFlow) raises ValueError. interpolate: the model takes timesteps between the integers (its
    embedding of time is a formula, not a table), so every level is exact, and so are derivatives. Other arguments: see
    `Adapted`. Raises ValueError for a schedule or a prediction type that determines no velocity.
    """

    def __init__(
        self,
        model: Model,
        alphas_cumprod: Tensor,
        prediction_type: PredictionType = "epsilon",
        call: Call = call_directly,
        *,
        interpolate: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(model, call, **options)
        if prediction_type not in get_args(PredictionType):
            raise ValueError(
                f"prediction_type {prediction_type!r}: choose one of {', '.join(get_args(PredictionType))}. A model "
                "that predicts the velocity noise − x0 of a flow is a Network already and needs no VP"
            )
        self.timesteps = Timesteps(alphas_cumprod, interpolate=interpolate)
        self.prediction_type = prediction_type
        self._check_ends()

    @property
    def sigmas(self) -> Tensor:
        """Each timestep's level on the flow scale, increasing: `t`, float64."""
        return self.timesteps.sigmas

    def velocity(self, x: Tensor, sigma: Tensor, cond: Conditioning, sigma_next: Tensor | None = None) -> Tensor:
        t, level = self.timesteps.at(sigma)
        t_next = None if sigma_next is None else self.timesteps.at(sigma_next)[0]
        size = ((1 - level).square() + level.square()).sqrt()
        signal, noise_share = expand((1 - level) / size, x), expand(level / size, x)
        scaled = x * (signal + noise_share)
        predicted = self.predict(scaled, t, cond, t_next)
        if self.prediction_type == "epsilon":
            noise, x0 = predicted, (scaled - noise_share * predicted) / signal
        elif self.prediction_type == "v_prediction":
            noise, x0 = noise_share * scaled + signal * predicted, signal * scaled - noise_share * predicted
        else:
            noise, x0 = (scaled - signal * predicted) / noise_share, predicted
        return noise - x0

    def _check_ends(self) -> None:
        first, last = float(self.sigmas[0]), float(self.sigmas[-1])
        if self.prediction_type == "epsilon" and last == 1:
            raise ValueError(
                f"alphas_cumprod is 0 at timestep {len(self.sigmas) - 1}, where predicted noise (epsilon) determines "
                "no x0: use a schedule without zero terminal signal, or a model that predicts v_prediction or sample"
            )
        if self.prediction_type == "sample" and first == 0:
            raise ValueError(
                "alphas_cumprod is 1 at timestep 0, where a predicted x0 (sample) determines no noise: leave that "
                "timestep out, or use a model that predicts epsilon or v_prediction"
            )


class TrigFlow(Adapted):
    """A model F(x_t, t) of x_t = cos t·x0 + sin t·noise that predicts dx/dt = cos t·noise − sin t·x0
    (arXiv:2410.11081, §3; data scaled to unit standard deviation, σ_d = 1). Arguments: see `Adapted`."""

    def velocity(self, x: Tensor, sigma: Tensor, cond: Conditioning, sigma_next: Tensor | None = None) -> Tensor:
        t = torch.atan2(sigma, 1 - sigma)
        t_next = None if sigma_next is None else torch.atan2(sigma_next, 1 - sigma_next)
        cos, sin = expand(t.cos(), x), expand(t.sin(), x)
        scaled = x * (cos + sin)
        f = self.predict(scaled, t, cond, t_next)
        return (sin * scaled + cos * f) - (cos * scaled - sin * f)


def trig_velocity(velocity: Tensor, x: Tensor, t: Tensor) -> Tensor:
    """Return TrigFlow's F, computed from a flow network's velocity at x_flow = x / (cos t + sin t).

    The inverse of `TrigFlow.velocity`. x is on TrigFlow's scale, `b …`; t `b`.
    """
    cos, sin = expand(t.cos(), x), expand(t.sin(), x)
    total = cos + sin
    x_flow = x / total
    noise, x0 = x_flow + cos / total * velocity, x_flow - sin / total * velocity
    return cos * noise - sin * x0


def trig_noise(x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """Return x_t = cos t·x0 + sin t·noise."""
    sigma = flow_sigma(t.cos(), t.sin())
    return add_noise(x0, noise, sigma) * expand(t.cos() + t.sin(), x0)
