"""What a run has produced: which student it ships, its worlds, and the start contexts of its checkpoint."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from distill.data.clips import Dataset, DatasetError
from distill.recipes import export
from distill.recipes.export import pick_starts
from distill.recipes.products import StageError
from distill.recipes.run import Run
from world.testing import tiny_world


@pytest.mark.parametrize(
    ("ships", "trained", "expected"),
    [
        ("distilled", ("warm_up", "teacher_forced", "few_step", "distilled"), "distilled"),
        ("teacher_forced", ("warm_up", "teacher_forced", "few_step", "distilled"), "teacher_forced"),
        ("distilled", ("warm_up", "teacher_forced"), "teacher_forced"),
        ("teacher_forced", ("warm_up",), "warm_up"),
    ],
)
def test_the_shipped_student_is_the_one_the_preset_names_or_the_latest_before_it(
    ships: str, trained: tuple[str, ...], expected: str, run: Run
) -> None:
    run.preset = replace(run.preset, shipped_stage=ships)
    with pytest.raises(StageError, match="no student in"):
        run.shipped_stage()
    for stage in trained:
        (run.folder / stage).mkdir(parents=True)
        (run.folder / stage / "state.pt").touch()
    assert run.shipped_stage() == expected


def test_the_worlds_of_all_stages_share_the_codec_with_its_device_and_type(run: Run) -> None:
    world = tiny_world(dtype=torch.bfloat16)
    for stage in ("teacher_forced", "distilled"):
        (run.folder / stage).mkdir(parents=True)
        torch.save({"ema": world.transformer.state_dict(), "step": 1}, run.folder / stage / "state.pt")
    stages = run.student_worlds(world)
    assert list(stages) == ["teacher_forced", "distilled"]
    for student in stages.values():
        assert student.codec is world.codec
        assert (student.device, student.dtype) == (world.device, world.dtype)
    assert {p.dtype for p in world.codec.parameters()} == {torch.bfloat16}


def test_start_contexts_show_much_and_lie_within_one_episode(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "NUM_PLACES", 60)
    run.stage("collect")
    dataset = run.dataset()
    path = dataset.paths("train")[0]
    with np.load(path) as arrays:
        content = dict(arrays)
    frames = content["frames"] = np.full_like(content["frames"], 90)
    frames[::2, ::2] = 200  # a fine pattern counts as nothing to see
    frames[27, :16], frames[31, :16] = 20, 40  # large parts differ most at 27, near an episode's end
    content["dones"][[19, 23, 40]] = True
    np.savez_compressed(path, **content)
    episodic = Dataset(dataset.root, replace(dataset.spec, continuing=False), dataset.collected)
    assert torch.equal(pick_starts(dataset, 8)[0].frames, torch.from_numpy(frames[20:28]))
    assert torch.equal(pick_starts(episodic, 8)[0].frames, torch.from_numpy(frames[24:32]))
    with pytest.raises(DatasetError, match="runs for 61 frames"):
        pick_starts(dataset, 60)
