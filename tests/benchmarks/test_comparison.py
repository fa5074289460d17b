"""How teacher and students are timed for comparison."""

import pytest

from benchmarks.distillation import comparison
from benchmarks.distillation.comparison import Evaluated, in_turns


class Machine:
    """A clock and simulated work: a second of work takes `slowness` seconds; the machine slows down on the way."""

    def __init__(self) -> None:
        self.now, self.slowness = 0.0, 1.0
        self.done: list[str] = []

    def perf_counter(self) -> float:
        return self.now

    def work(self, name: str, seconds: float) -> None:
        self.done.append(name)
        self.now += seconds * self.slowness
        if self.now >= 24:
            self.slowness = 3.0


def test_a_slowdown_of_the_machine_affects_all_rows_equally(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine()
    monkeypatch.setattr(comparison, "time", machine)

    def entry(name: str, seconds: float) -> Evaluated:
        return Evaluated(
            method=name,
            num_steps=1,
            quality={},
            make=lambda: machine.work(name, seconds),
            train_s=None,
            train_steps=1,
        )

    teacher, first, second = in_turns([entry("teacher", 10.0), entry("first", 1.0), entry("second", 1.0)], rounds=5)
    assert machine.done == ["teacher", "first", "second"] * 5
    assert machine.slowness == 3.0, "the machine slowed down during the measurement"
    assert (teacher.sample_s, first.sample_s, second.sample_s) == (30.0, 3.0, 3.0)
