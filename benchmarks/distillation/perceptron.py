"""A small network for data without frames: points, digits. Owns a residual perceptron behind the network contract."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from world.model.patterns import AttentionPattern
from world.model.transformer import Conditioning, Output, sinusoid


class Perceptron(nn.Module):
    """Velocity of x `b …` at sigma `b`, in residual layers of `width` that are modulated by sigma and, where the
    network is a flow map, by the level it goes to (none given: its own). features: hidden states `b width` after the
    asked layers. The last layer starts at zero.

    size: elements of a sample. Raises ValueError where it is asked for a context.
    """

    def __init__(self, size: int, *, width: int = 256, num_layers: int = 3, frequency_dim: int = 64) -> None:
        super().__init__()
        self.frequency_dim = frequency_dim
        self.level = _embedding(frequency_dim, width)
        self.step = _embedding(frequency_dim, width)
        self.first = nn.Linear(size, width)
        self.layers = nn.ModuleList(Layer(width) for _ in range(num_layers))
        self.last = nn.Linear(width, size)
        for module in (self.last, self.step[-1]):
            nn.init.zeros_(module.weight)  # type: ignore[arg-type]  # Sequential indexing loses the layer's type
            nn.init.zeros_(module.bias)  # type: ignore[arg-type]

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
        if pattern is not None:
            raise ValueError("a perceptron has no frames, so it takes no context")
        dtype = self.first.weight.dtype
        embedding = self.level(_level_features(sigma, self.frequency_dim).to(dtype))
        if sigma_next is not None:
            embedding = embedding + self.step(_level_features(sigma - sigma_next, self.frequency_dim).to(dtype))
        hidden, kept = self.first(x.flatten(1).to(dtype)), {}
        for number, layer in enumerate(self.layers):
            hidden = layer(hidden, embedding)
            if number in features:
                kept[number] = hidden
        return Output(self.last(F.silu(hidden)).view_as(x), [], kept)


class Layer(nn.Module):
    """x + linear(silu(linear(x)·(1 + scale) + shift)), scale and shift from the embedding."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.modulation = nn.Linear(width, 2 * width)
        self.enter = nn.Linear(width, width)
        self.leave = nn.Linear(width, width)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        scale, shift = self.modulation(F.silu(embedding)).chunk(2, dim=-1)
        y: Tensor = self.leave(F.silu(self.enter(F.silu(x)) * (1 + scale) + shift))
        return x + y


def _embedding(dim: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(dim, width), nn.SiLU(), nn.Linear(width, width))


def _level_features(level: Tensor, dim: int) -> Tensor:
    """Slow sinusoids only: a derivative by the level, which sCM and MeanFlow take, must not be the noise of fast
    ones (arXiv:2410.11081, §4.1)."""
    return sinusoid(level / 100, dim).to(level.dtype)
