"""The training loop. Owns optimisation, moving averages, resuming at the exact step, and metrics; knows no loss.

A `Task` is trained: modules to optimise and a function from step to losses. Everything that a step draws at random
comes from a generator seeded by (seed, step), so an interrupted run continues exactly as if it had never stopped.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from tqdm import tqdm

from distill.training.averaging import HalfLife, Power, decay_at
from world.device import has_fast_bf16
from world.format_1 import weights_from_disk

logger = logging.getLogger(__name__)

STATE_FILE = "state.pt"
"""The name of the file in a stage's folder that training resumes from."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainerConfig:
    """How a task is optimised. The learning rate warms up linearly over `warmup_steps`, stays at `lr`, and decays over
    the last `decay_share` of the steps to `final_lr_share` of `lr`."""

    num_steps: int
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.01
    warmup_steps: int = 100
    decay_share: float = 0.4
    final_lr_share: float = 0.02
    clip_norm: float = 1.0
    ema_decay: float | Power | HalfLife = 0.999
    accumulate: int = 1
    save_every: int = 100
    log_every: int = 20
    seed: int = 0
    autocast: bool = True


class Task(Protocol):
    """Modules, and the losses that train them."""

    @property
    def modules(self) -> Mapping[str, nn.Module]:
        """All modules that are saved and resumed, by name."""
        ...

    @property
    def optimised(self) -> Mapping[str, float]:
        """Name of each module that has an optimiser → its learning-rate multiplier."""
        ...

    @property
    def averaged(self) -> str:
        """Name of the module whose exponential moving average is the product."""
        ...

    def losses(self, step: int, generator: torch.Generator) -> Iterator[tuple[str, Tensor, dict[str, float]]]:
        """Yield (module to update, loss, metrics). The trainer back-propagates each loss and updates the module before
        it draws the next one."""
        ...


def autocast(enabled: bool) -> AbstractContextManager[None]:
    """Return bf16 autocast where that is fast; otherwise a context that does nothing."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if enabled and has_fast_bf16():
        return torch.autocast(device, dtype=torch.bfloat16)
    return nullcontext()


def lr_share(step: int, config: TrainerConfig) -> float:
    """Return the multiplier of `lr` at a step: warm-up, plateau, cosine decay."""
    warm = min(1.0, (step + 1) / max(1, config.warmup_steps))
    start = config.num_steps * (1 - config.decay_share)
    if step <= start:
        return warm
    progress = min(1.0, (step - start) / max(1.0, config.num_steps - start))
    return warm * (config.final_lr_share + (1 - config.final_lr_share) * 0.5 * (1 + math.cos(math.pi * progress)))


class Trainer:
    """Trains a task to its last step, and saves state to resume from in `folder`."""

    def __init__(self, task: Task, config: TrainerConfig, folder: Path) -> None:
        self.task = task
        self.config = config
        self.folder = folder
        self.step = 0
        folder.mkdir(parents=True, exist_ok=True)
        self.optimisers = {
            name: torch.optim.AdamW(
                _parameter_groups(task.modules[name], config.weight_decay), lr=config.lr * share, betas=config.betas
            )
            for name, share in task.optimised.items()
        }
        self.ema = {k: v.detach().clone() for k, v in task.modules[task.averaged].state_dict().items()}
        self._resume()

    @property
    def state_path(self) -> Path:
        return self.folder / STATE_FILE

    def run(self, *, stop_after_s: float | None = None, quiet: bool = False) -> bool:
        """Train to the last step, or until `stop_after_s` seconds have passed. Return whether training is finished."""
        started = time.monotonic()
        with tqdm(initial=self.step, total=self.config.num_steps, desc=self.folder.name, disable=quiet) as bar:
            while self.step < self.config.num_steps:
                metrics = self._train_step()
                self.step += 1
                bar.update()
                if self.step % self.config.log_every == 0:
                    bar.set_postfix({k: f"{v:.4g}" for k, v in metrics.items()})
                    self._log(metrics, time.monotonic() - started)
                last = self.step == self.config.num_steps
                out_of_time = stop_after_s is not None and time.monotonic() - started > stop_after_s
                if last or out_of_time or self.step % self.config.save_every == 0:
                    self.save()
                if out_of_time and not last:
                    return False
        return True

    def _train_step(self) -> dict[str, float]:
        share = lr_share(self.step, self.config)
        metrics: dict[str, float] = {"lr_share": share}
        for part in range(self.config.accumulate):
            generator = torch.Generator().manual_seed(_mix(self.config.seed, self.step, part))
            last = part == self.config.accumulate - 1
            for name, loss, values in self.task.losses(self.step, generator):
                (loss / self.config.accumulate).backward()
                metrics |= values | {f"{name}_loss": float(loss.detach())}
                if last:
                    metrics[f"{name}_grad"] = self._apply(name, share)
        self._update_ema()
        return metrics

    def _apply(self, name: str, share: float) -> float:
        optimiser = self.optimisers[name]
        norm = nn.utils.clip_grad_norm_(self.task.modules[name].parameters(), self.config.clip_norm)
        for group in optimiser.param_groups:
            group["lr"] = self.config.lr * self.task.optimised[name] * share
        if torch.isfinite(norm):
            optimiser.step()
        else:
            logger.warning("step %d: gradient of %s is not finite; update skipped", self.step, name)
        optimiser.zero_grad(set_to_none=True)
        return float(norm)

    @torch.no_grad()
    def _update_ema(self) -> None:
        decay = decay_at(self.step, self.config.ema_decay)
        for key, value in self.task.modules[self.task.averaged].state_dict().items():
            if value.is_floating_point():
                self.ema[key].lerp_(value, 1 - decay)
            else:
                self.ema[key].copy_(value)

    def save(self) -> None:
        """Write the complete state. The file is replaced in one move, so a crash leaves the former one intact."""
        state = {
            "step": self.step,
            "modules": {name: module.state_dict() for name, module in self.task.modules.items()},
            "optimisers": {name: optimiser.state_dict() for name, optimiser in self.optimisers.items()},
            "ema": self.ema,
        }
        partial = self.state_path.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(self.state_path)

    def _resume(self) -> None:
        if not self.state_path.exists():
            return
        state = read_state(self.folder)
        self.step = state["step"]
        for name, module in self.task.modules.items():
            module.load_state_dict(state["modules"][name])
        for name, optimiser in self.optimisers.items():
            optimiser.load_state_dict(state["optimisers"][name])
        self.ema = state["ema"]
        logger.info("resumed %s at step %d", self.folder.name, self.step)

    def _log(self, metrics: dict[str, float], elapsed_s: float) -> None:
        with (self.folder / "metrics.jsonl").open("a") as file:
            file.write(json.dumps({"step": self.step, "elapsed_s": round(elapsed_s, 1)} | metrics) + "\n")


def trained(task: Task, config: TrainerConfig, *, quiet: bool = True) -> nn.Module:
    """Train a task to its end and return the averaged network, frozen. Nothing stays on disk."""
    with TemporaryDirectory() as folder:
        trainer = Trainer(task, replace(config, save_every=config.num_steps), Path(folder))
        trainer.run(quiet=quiet)
    network = task.modules[task.averaged]
    network.load_state_dict(trainer.ema)
    return network.eval().requires_grad_(False)


def read_state(folder: Path) -> dict[str, Any]:
    """Return the state that `Trainer.save` wrote to a folder, on the CPU, under the present names of modules and
    weights."""
    state: dict[str, Any] = torch.load(folder / STATE_FILE, weights_only=True, map_location="cpu")
    for part in ("modules", "optimisers"):
        if part in state:
            state[part] = _modules_from_disk(state[part])
    state["modules"] = {name: weights_from_disk(weights) for name, weights in state.get("modules", {}).items()}
    state["ema"] = weights_from_disk(state["ema"])
    return state


def _modules_from_disk(entries: dict[str, Any]) -> dict[str, Any]:
    """Rename modules as their weights are renamed: a module's name is the prefix of its weights."""
    renamed = weights_from_disk({f"{name}.": value for name, value in entries.items()})
    return {prefix.removesuffix("."): value for prefix, value in renamed.items()}


def load_product(folder: Path) -> tuple[dict[str, Tensor], int]:
    """Return the averaged weights that a stage has produced so far, and the number of steps they have been trained."""
    state = read_state(folder)
    return state["ema"], int(state["step"])


def trained_steps(folder: Path) -> int:
    """Return how many steps the state in a folder has been trained, without reading its weights."""
    state = torch.load(folder / STATE_FILE, weights_only=True, map_location="cpu", mmap=True)
    return int(state["step"])


def _parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    matrices = [p for p in module.parameters() if p.requires_grad and p.ndim >= 2]
    others = [p for p in module.parameters() if p.requires_grad and p.ndim < 2]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]


def _mix(seed: int, step: int, part: int) -> int:
    return (seed * 1_000_003 + step * 9_176 + part * 31 + 17) % (2**63 - 1)
