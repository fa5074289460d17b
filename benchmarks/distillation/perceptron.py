"""A small network for data without frames, such as points and digits: a residual perceptron as a `Network`."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from world.model.patterns import AttentionPattern
from world.model.transformer import Conditioning, Output, sinusoid


class Perceptron(nn.Module):
    """Predicts the velocity of x `b …` at sigma `b`.

    Residual layers of `width` are modulated by sigma and, for a flow map, by the target level (default: sigma itself).
    The last layer starts at zero. features: layers whose hidden states `b width` are returned. size: elements of a
    sample. Raises ValueError if an attention pattern is passed.
    """

    def __init__(self, size: int, *, width: int = 256, num_layers: int = 3, frequency_dim: int = 64) -> None:
        super().__init__()
        self.frequency_dim = frequency_dim
        self.num_layers = num_layers
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
            raise ValueError("a perceptron has no frames, so it takes no attention pattern")
        dtype = self.first.weight.dtype
        embedding = self.level(_level_features(sigma, self.frequency_dim).to(dtype))
        if sigma_next is not None:
            embedding = embedding + self.step(_level_features(sigma - sigma_next, self.frequency_dim).to(dtype))
        hidden, selected = self.first(x.flatten(1).to(dtype)), {}
        for number, layer in enumerate(self.layers):
            hidden = layer(hidden, embedding)
            if number in features:
                selected[number] = hidden
        return Output(self.last(F.silu(hidden)).view_as(x), [], selected)


class Layer(nn.Module):
    """x + linear(silu(linear(silu(x))·(1 + scale) + shift)), with scale and shift from the embedding."""

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
    """Return features of the level from slow sinusoids only.

    sCM and MeanFlow differentiate with respect to the level; fast sinusoids would make that derivative noisy
    (arXiv:2410.11081, §4.1).
    """
    return sinusoid(level / 100, dim).to(level.dtype)
