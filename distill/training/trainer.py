"""The training loop. Owns optimisation, moving averages, resuming at the exact step, and metrics; knows no loss.

A `Task` is trained: modules to optimise and a function from step to losses. Everything that a step draws at random
comes from a generator seeded by (seed, step, part), so an interrupted run continues exactly as if it had never stopped.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from distill.training.averaging import HalfLife, Power, decay_at
from distill.training.checks import (
    MAX_NOT_FINITE,
    TrainingError,
    check_graph,
    check_reached,
    has_gradient,
    is_finite,
    not_finite,
)
from distill.training.neighbours import watched_neighbours
from distill.training.state import STATE_FILE, TrainingStateError, copied, num_bytes, read_state, write_state
from distill.training.stopping import StepAbandoned, StopSignal
from distill.training.task import Following, Task, Update

logger = logging.getLogger(__name__)

SLOW_STEP_S, MAX_COPY_BYTES = 0.3, 2**30
"""A step that takes longer is left at once when a signal comes, if a copy of the state before it is not larger."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainerConfig:
    """How a task is optimised. The learning rate warms up linearly over `warmup_steps`, stays at `lr`, and decays over
    the last `decay_share` of the steps to `final_lr_share` of `lr`.

    accumulate: every update is the mean gradient of so many independent draws. save_every, log_every: in steps. Raises
    ValueError for counts below 1.
    """

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

    def __post_init__(self) -> None:
        for name in ("num_steps", "accumulate", "save_every", "log_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)}: must be at least 1")


def lr_share(step: int, config: TrainerConfig) -> float:
    """Return the multiplier of `lr` at a step: warm-up, plateau, cosine decay."""
    warm = min(1.0, (step + 1) / max(1, config.warmup_steps))
    start = config.num_steps * (1 - config.decay_share)
    if step <= start:
        return warm
    progress = min(1.0, (step - start) / max(1.0, config.num_steps - start))
    return warm * (config.final_lr_share + (1 - config.final_lr_share) * 0.5 * (1 + math.cos(math.pi * progress)))


class Trainer:
    """Trains a task to its last step, and saves state to resume from in `folder`. name: for the progress bar and errors
    (default: the folder's)."""

    def __init__(self, task: Task, config: TrainerConfig, folder: Path, *, name: str | None = None) -> None:
        self.task = task
        self.config = config
        self.folder = folder
        self.name = name or folder.name
        self.step = 0
        folder.mkdir(parents=True, exist_ok=True)
        self.optimisers = {
            name: torch.optim.AdamW(
                _parameter_groups(task.modules[name], config.weight_decay), lr=config.lr * share, betas=config.betas
            )
            for name, share in task.optimised.items()
        }
        self.ema = {k: v.detach().clone() for k, v in task.modules[task.averaged].state_dict().items()}
        self._checked: set[str] = set()
        self._num_skipped = dict.fromkeys(task.optimised, 0)  # updates in a row
        self._step_s = math.inf  # of the slowest of the last steps; the first may compile
        self._resume()

    @property
    def state_path(self) -> Path:
        return self.folder / STATE_FILE

    def run(self, *, stop_after_s: float | None = None, quiet: bool = False) -> bool:
        """Train to the last step, or until `stop_after_s` seconds have passed. Return whether training is finished.

        SIGINT and SIGTERM take effect once the state of the last complete step is saved. Raises TrainingError if a
        loss does not train its module, or updates are not finite; the state on disk is then from before these updates.
        """
        stop = StopSignal()
        with stop.held(), watched_neighbours():
            return self._run(stop, stop_after_s, quiet=quiet)

    def _run(self, stop: StopSignal, stop_after_s: float | None, *, quiet: bool) -> bool:
        started = time.monotonic()
        with tqdm(initial=self.step, total=self.config.num_steps, desc=self.name, disable=quiet) as bar:
            while self.step < self.config.num_steps:
                metrics = self._try_step(stop)
                if metrics is None:
                    return False
                self.step += 1
                bar.update()
                if self.step % self.config.log_every == 0:
                    bar.set_postfix({k: f"{v:.4g}" for k, v in metrics.items()})
                    self._log(metrics, time.monotonic() - started)
                last = self.step == self.config.num_steps
                leaves = stop.has_come or (stop_after_s is not None and time.monotonic() - started > stop_after_s)
                if last or self._is_to_be_saved(leaves=leaves):
                    self.save()
                if leaves and not last:
                    return False
        return True

    def _is_to_be_saved(self, *, leaves: bool) -> bool:
        """While updates are skipped, only a loop that is left saves, and only finite weights: an error may come."""
        if not any(self._num_skipped.values()):
            return leaves or self.step % self.config.save_every == 0
        return leaves and all(map(is_finite, self.task.modules.values()))

    def _try_step(self, stop: StopSignal) -> dict[str, float] | None:
        """Take a step and return its metrics; None if a signal ended it, and then the state before it is saved."""
        state = self._state()
        before = copied(state) if self._step_s > SLOW_STEP_S and num_bytes(state) <= MAX_COPY_BYTES else None
        begun = time.monotonic()
        try:
            with stop.abandoning(before is not None):
                metrics = self._train_step()
        except StepAbandoned:
            assert before is not None
            write_state(self.folder, before)
            return None
        took_s = time.monotonic() - begun
        self._step_s = took_s if math.isinf(self._step_s) else max(took_s, 0.9 * self._step_s)
        return metrics

    def _train_step(self) -> dict[str, float]:
        share = lr_share(self.step, self.config)
        metrics: dict[str, float] = {"lr_share": share}
        parts = [self.task.losses(self.step, self._generator(part)) for part in range(self.config.accumulate)]
        moves = False
        while (name := self._accumulate(parts, metrics)) is not None:
            check_reached(name, self.task.modules[name])
            moves = has_gradient(self.task.modules[name]) or moves
            metrics[f"{name}_grad"] = self._apply(name, share, metrics[f"{name}_loss"])
        if not moves:
            raise TrainingError(
                f"{self.name}, step {self.step}: every gradient is 0, so nothing is learned. Check that the loss "
                "depends on the weights, and that its mask or weights leave something of it"
            )
        if isinstance(self.task, Following):
            self.task.follow()
        self._update_ema()
        return metrics

    def _accumulate(self, parts: Sequence[Iterator[Update]], metrics: dict[str, float]) -> str | None:
        """Back-propagate the next loss of every part, and write means of losses and metrics to `metrics`. Return the
        name of the module that they train; None after the last."""
        means, names = dict[str, float](), set[str | None]()
        for part in parts:
            name, loss, values = next(part, (None, None, {}))
            names.add(name)
            if name is None or loss is None:
                continue
            if name not in self._checked:
                check_graph(name, loss, self.task.modules)
                self._checked.add(name)
            (loss / len(parts)).backward()
            for key, value in (values | {f"{name}_loss": float(loss.detach())}).items():
                means[key] = means.get(key, 0.0) + value / len(parts)
        if len(names) > 1:
            raise TrainingError(f"{self.name}, step {self.step}: accumulated draws update different modules: {names}")
        metrics |= means
        return names.pop()

    def _apply(self, name: str, share: float, loss: float) -> float:
        module, optimiser = self.task.modules[name], self.optimisers[name]
        norm = nn.utils.get_total_norm([weight.grad for weight in module.parameters() if weight.grad is not None])
        for group in optimiser.param_groups:
            group["lr"] = self.config.lr * self.task.optimised[name] * share
        if torch.isfinite(norm):
            nn.utils.clip_grads_with_norm_(module.parameters(), self.config.clip_norm, norm)
            optimiser.step()
            self._num_skipped[name] = 0
        else:
            self._skip(name, loss)
        optimiser.zero_grad(set_to_none=True)
        return float(norm)

    def _skip(self, name: str, loss: float) -> None:
        """Count an update that is not finite. Raises TrainingError for too many in a row."""
        logger.warning("step %d: gradient of %s is not finite; update skipped", self.step, name)
        self._num_skipped[name] += 1
        if self._num_skipped[name] >= min(MAX_NOT_FINITE, self.config.num_steps):
            kept = f"{self.state_path} is from before them" if self.state_path.exists() else "nothing was saved"
            raise TrainingError(
                f"{self.name}, step {self.step}: the last {self._num_skipped[name]} updates of {name} were not finite "
                f"and were skipped. {not_finite(name, self.task.modules[name], loss)}. Look for values in the data "
                f"that are not finite, or lower the learning rate ({self.config.lr:g}); {kept}"
            )

    @torch.no_grad()
    def _update_ema(self) -> None:
        decay = decay_at(self.step, self.config.ema_decay)
        for key, value in self.task.modules[self.task.averaged].state_dict().items():
            if value.is_floating_point():
                self.ema[key].lerp_(value, 1 - decay)
            else:
                self.ema[key].copy_(value)

    def _generator(self, part: int) -> torch.Generator:
        return torch.Generator().manual_seed(_mix(self.config.seed, self.step, part))

    def _state(self) -> dict[str, Any]:
        """Return the complete state, whose tensors change with training."""
        return {
            "step": self.step,
            "modules": {name: module.state_dict() for name, module in self.task.modules.items()},
            "optimisers": {name: optimiser.state_dict() for name, optimiser in self.optimisers.items()},
            "ema": self.ema,
        }

    def save(self) -> None:
        """Write the complete state."""
        write_state(self.folder, self._state())

    def _resume(self) -> None:
        if not self.state_path.exists():
            return
        state = read_state(self.folder)
        try:
            for name, module in self.task.modules.items():
                module.load_state_dict(state["modules"][name])
            for name, optimiser in self.optimisers.items():
                optimiser.load_state_dict(state["optimisers"][name])
        except (KeyError, RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            raise TrainingStateError(
                f"{self.state_path} is of another network or recipe than this one ({reason}): choose another name, or "
                f"delete {self.folder} to train the stage anew"
            ) from error
        self.step, self.ema = state["step"], state["ema"]
        logger.info("resumed %s at step %d", self.name, self.step)

    def _log(self, metrics: dict[str, float], elapsed_s: float) -> None:
        with (self.folder / "metrics.jsonl").open("a") as file:
            file.write(json.dumps({"step": self.step, "elapsed_s": round(elapsed_s, 1)} | metrics) + "\n")


def trained(task: Task, config: TrainerConfig, *, folder: Path | None = None, quiet: bool = True) -> nn.Module:
    """Train a task to its end and return the averaged network, frozen.

    folder: where state is saved every `config.save_every` steps; called again with it, an interrupted training
    continues. Without a folder nothing stays on disk.
    """
    with ExitStack() as stack:
        if folder is None:
            folder = Path(stack.enter_context(TemporaryDirectory()))
            config = replace(config, save_every=config.num_steps)
        trainer = Trainer(task, config, folder, name=task.averaged)
        trainer.run(quiet=quiet)
    network = task.modules[task.averaged]
    network.load_state_dict(trainer.ema)
    return network.eval().requires_grad_(False)


def _parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    matrices = [p for p in module.parameters() if p.requires_grad and p.ndim >= 2]
    others = [p for p in module.parameters() if p.requires_grad and p.ndim < 2]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]


def _mix(seed: int, step: int, part: int) -> int:
    return (seed * 1_000_003 + step * 9_176 + part * 31 + 17) % (2**63 - 1)
