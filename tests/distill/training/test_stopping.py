"""SIGINT and SIGTERM while a process trains: it ends at once, and no complete step is lost."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from distill.training.state import read_state
from distill.training.stopping import SIGNALS
from distill.training.trainer import Trainer, TrainerConfig
from tests.distill.training.test_trainer import LineTask

ROOT = Path(__file__).resolve().parents[3]
PROGRAM = """
import sys, time
from pathlib import Path
from distill.training.trainer import Trainer, TrainerConfig
from tests.distill.training.test_trainer import LineTask

class SlowTask(LineTask):
    def losses(self, step, generator):
        yield from super().losses(step, generator)
        print(step, flush=True)  # the weights of this step have changed, the average has not
        time.sleep(float(sys.argv[2]) if step >= 2 else min(0.4, float(sys.argv[2])))

config = TrainerConfig(num_steps=1000, save_every=1000)
Trainer(SlowTask(), config, Path(sys.argv[1])).run(quiet=True)
"""


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
@pytest.mark.parametrize("step_s", [0.1, 100.0], ids=["short steps", "a long step"])
def test_a_signal_ends_training_and_loses_no_complete_step(
    tmp_path: Path, number: signal.Signals, step_s: float
) -> None:
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "stopped"), str(step_s)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        while process.stdout.readline() != "2\n":
            pass
        process.send_signal(number)
        printed, errors = process.communicate(timeout=60)  # far less than a long step
    assert process.returncode == -number, errors
    state = read_state(tmp_path / "stopped")
    last_begun = [2, *map(int, printed.split())][-1]
    assert state["step"] in (last_begun, last_begun + 1), "a step that is not slow is completed first"
    assert step_s < 1 or state["step"] == 2
    same = Trainer(LineTask(), TrainerConfig(num_steps=1000), tmp_path / "not stopped")
    for _ in range(state["step"]):
        same.run(stop_after_s=0.0, quiet=True)
    expected = read_state(tmp_path / "not stopped")
    torch.testing.assert_close(state["modules"], expected["modules"], rtol=0, atol=0)
    torch.testing.assert_close(state["ema"], expected["ema"], rtol=0, atol=0)
