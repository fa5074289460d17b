"""The kernels compile within the limits of chips that this machine lacks; in a separate process, since Triton decides
when it loads a kernel whether to interpret it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kernels.ahead_of_time import CHIPS, MATRIX_INSTRUCTION, Cost

ROOT = Path(__file__).resolve().parents[2]
IN_A_HURRY = 90


@pytest.mark.parametrize(
    "chip", [chip if chip == IN_A_HURRY else pytest.param(chip, marks=pytest.mark.slow) for chip in CHIPS]
)
@pytest.mark.timeout(600)
def test_every_kernel_compiles_within_the_chips_limits(chip: int) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "kernels.ahead_of_time", "--chips", str(chip), "--json"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    costs = json.loads(done.stdout)
    assert len(costs) == 14
    assert {cost["chip"] for cost in costs} == {chip}
    assert all(cost["bytes_spilled"] == 0 and cost["registers"] > 0 and not cost["broken"] for cost in costs)
    assert {cost["instruction"] for cost in costs if "attention" in cost["kernel"]} == {MATRIX_INSTRUCTION[chip]}


def test_an_exceeded_limit_is_reported() -> None:
    cost = Cost(kernel="k", chip=86, registers=255, bytes_spilled=8, shared_bytes=200_000, instruction="")
    words = cost.broken(multiplies=True)
    assert "spills 8 bytes" in words
    assert "200000 bytes of shared memory of 101376" in words
    assert "multiplies by nothing" in words
    fine = Cost(kernel="k", chip=86, registers=255, bytes_spilled=0, shared_bytes=1, instruction="mma.sync")
    assert fine.broken(multiplies=True) == ""
