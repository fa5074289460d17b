"""The number of threads follows what steps take: on an idle machine, beside a busy process, and as that comes and goes.

Times are those measured on two cores (Pong, one session): 17.1 ms with two threads and 19.6 with one on the idle
machine; beside a busy process 38, now and then 170, and 19.2.
"""

from __future__ import annotations

from random import Random

import pytest

from world.rollout.thread_policy import LONGEST_WAIT, WINDOW, ThreadPolicy, choices_up_to, preferred_for, typical_ms


class Machine:
    """Steps of one batch size on two cores, with or without a busy process beside them."""

    def __init__(self, policy: ThreadPolicy, *, one_ms: float = 19.6, two_ms: float = 17.1) -> None:
        self.policy, self.idle_ms = policy, {1: one_ms, 2: two_ms}
        self.is_busy = False
        self.random = Random(0)
        self.used: list[int] = []
        self.took_ms: list[float] = []

    def step_ms(self, threads: int) -> float:
        if threads == 2 and self.is_busy:
            return 170.0 if self.random.random() < 0.1 else self.random.uniform(30.0, 46.0)
        return self.idle_ms[threads] * self.random.uniform(0.98, 1.04)

    def run(self, num_steps: int, batch: int = 1) -> None:
        for _ in range(num_steps):
            threads = self.policy.threads(batch)
            limit = self.policy.limit(batch)
            took_ms = self.step_ms(threads)
            if limit is not None and took_ms > limit[0] and limit[1] < threads:
                took_ms = limit[0] + (1 - limit[0] / took_ms) * self.step_ms(limit[1])
            self.used.append(threads)
            self.took_ms.append(took_ms)
            self.policy.record(batch, took_ms)


def test_on_an_idle_machine_the_faster_number_is_found_and_nearly_nothing_is_lost() -> None:
    machine = Machine(ThreadPolicy((1, 2), {1: 1}))
    machine.run(20)
    assert machine.used[-1] == 2
    machine.run(2000)
    assert sum(machine.took_ms[20:]) < 1.03 * 2000 * 17.1 * 1.01


def test_when_a_process_occupies_a_core_fewer_threads_are_used_within_a_few_steps() -> None:
    machine = Machine(ThreadPolicy((1, 2), {1: 2}))
    machine.run(1000)
    machine.is_busy = True
    machine.run(12)
    assert machine.used[-1] == 1
    machine.run(1800)  # a minute
    late = machine.took_ms[-1800:]
    assert sum(ms > 25.0 for ms in late) <= 18, "beside a busy process, more threads are tried less and less often"
    assert sorted(late)[900] < 21.0


def test_no_step_takes_much_longer_than_two() -> None:
    machine = Machine(ThreadPolicy((1, 2), {1: 2}))
    machine.run(100)
    for _ in range(20):
        machine.is_busy = not machine.is_busy
        machine.run(300)
    assert max(machine.took_ms[100:]) < 2.0 * 17.1 + 20.0


def test_a_step_is_limited_where_it_can_go_on_with_fewer_threads() -> None:
    policy = ThreadPolicy((1, 4, 8), {1: 8})
    assert (policy.threads(1), policy.limit(1)) == (1, None), "nothing is known yet"
    policy.record(1, 15.0)
    assert (policy.threads(1), policy.limit(1)) == (8, (30.0, 1)), "by the first step"
    policy.record(1, 400.0)
    assert policy.limit(1) == (30.0, 1)
    for _ in range(WINDOW):
        policy.record(1, 10.0)
    assert (policy.threads(1), policy.limit(1)) == (4, (15.0, 4)), "a trial of fewer"
    alone = ThreadPolicy((1, 2), {1: 1})
    for _ in range(WINDOW):
        alone.record(1, 10.0)
    assert alone.limit(1) is None
    alone.record(1, 10.0)
    assert (alone.threads(1), alone.limit(1)) == (2, (15.0, 1)), "a trial of more"


def test_beside_a_busy_process_from_the_start_few_steps_are_slow() -> None:
    machine = Machine(ThreadPolicy((1, 2), {1: 1}))
    machine.is_busy = True
    machine.run(1800)
    assert machine.used.count(2) <= 10


def test_a_trial_of_more_can_be_left_out_and_comes_again() -> None:
    machine = Machine(ThreadPolicy((1, 2), {1: 1}))
    machine.run(1)
    for _ in range(3):
        machine.run(WINDOW - 1)
        assert machine.policy.tries_more(1) is None
        machine.run(1)
        assert machine.policy.tries_more(1) == 2
        machine.policy.skip_trial(1)
        assert machine.policy.threads(1) == 1
    assert machine.used.count(2) == 0
    machine.run(WINDOW + 1)
    assert machine.used[-1] == 2
    assert machine.policy.tries_more(1) is None, "it has begun"


def test_when_the_process_has_ended_more_threads_are_used_again() -> None:
    machine = Machine(ThreadPolicy((1, 2), {1: 1}))
    machine.is_busy = True
    machine.run(5000)
    assert machine.used[-1] == 1
    machine.is_busy = False
    machine.run(LONGEST_WAIT + 2 * WINDOW)
    assert machine.used[-1] == 2


def test_a_single_slow_step_changes_nothing() -> None:
    machine = Machine(ThreadPolicy((1, 2), {1: 2}))
    machine.run(100)
    used = len(machine.used)
    machine.policy.record(1, 900.0)
    machine.run(WINDOW)
    assert machine.used[used:] == [2] * WINDOW


def test_steps_that_get_slow_with_any_number_keep_the_faster_one() -> None:
    machine = Machine(ThreadPolicy((1, 2), {1: 2}), one_ms=65.0, two_ms=38.0)
    machine.run(500)
    machine.idle_ms = {1: 130.0, 2: 76.0}
    machine.run(500)
    assert machine.used[-500:].count(1) <= 10


def test_every_batch_size_has_its_own_number() -> None:
    policy = ThreadPolicy((1, 2), {1: 1, 8: 2})
    for batch in (1, 4, 8, 20):
        policy.record(batch, 30.0)
    assert [policy.threads(batch) for batch in (1, 4, 8, 20)] == [1, 1, 2, 2]
    machine = Machine(policy)
    machine.is_busy = True
    machine.run(20, batch=8)
    assert (policy.threads(8), policy.threads(1)) == (1, 1)
    machine.is_busy = False
    machine.run(20)
    assert (policy.threads(8), policy.threads(1)) == (1, 2)


def test_where_nothing_is_preferred_more_are_tried_after_a_moment() -> None:
    machine = Machine(ThreadPolicy((1, 2)))
    machine.run(9)
    assert machine.used == [1, 1, 1, 2, 2, 2, 2, 2, 2]
    machine = Machine(ThreadPolicy((1, 2)))
    machine.is_busy = True
    machine.run(200)
    assert machine.used.count(2) <= 8


def test_numbers_between_are_found_one_after_the_other() -> None:
    policy = ThreadPolicy(choices_up_to(8))
    for _ in range(200):
        policy.record(1, {1: 40.0, 4: 12.0, 8: 30.0}[policy.threads(1)])
    assert policy.threads(1) == 4


def test_what_is_forgotten_is_decided_anew() -> None:
    machine = Machine(ThreadPolicy((1, 2), {1: 1}))
    machine.run(100)
    assert machine.policy.threads(1) == 2
    machine.policy.forget()
    assert machine.policy.threads(1) == 1


@pytest.mark.parametrize(("most", "expected"), [(1, (1,)), (2, (1, 2)), (3, (1, 3)), (16, (1, 8, 16))])
def test_choices_reach_from_one_to_the_most(most: int, expected: tuple[int, ...]) -> None:
    assert choices_up_to(most) == expected


def test_a_batch_size_takes_the_preference_of_the_next_smaller_one() -> None:
    assert [preferred_for(batch, {2: 1, 8: 2}) for batch in (1, 2, 7, 8, 9)] == [1, 1, 1, 2, 2]
    assert preferred_for(1, {}) is None


def test_one_outlier_does_not_count() -> None:
    assert typical_ms([10.0, 12.0, 500.0]) == 11.0
    assert typical_ms([7.0]) == 7.0
