"""Records of what a product was made from, and what counts as a change."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from distill.recipes.fingerprint import Record, digest, flattened, read_record, selected, write_record

RECORD = Record(settings={"dim": 32, "loss.adversarial": None}, inputs={"codec": "a", "latents": "b"})


def changes(settings: dict[str, object] | None = None, inputs: dict[str, str] | None = None) -> list[str]:
    return RECORD.changes({**RECORD.settings, **(settings or {})}, {**RECORD.inputs, **(inputs or {})})


def test_changed_settings_and_inputs_are_named() -> None:
    assert changes() == []
    assert changes({"dim": 64}) == ["its recipe changed (dim 32 → 64)"]
    assert changes(inputs={"latents": "c"}) == ["its input latents was made again"]
    assert changes({"dim": 64}, {"codec": "c"}) == [
        "its recipe changed (dim 32 → 64)",
        "its input codec was made again",
    ]


def test_other_inputs_are_changes() -> None:
    found = RECORD.changes(RECORD.settings, {"codec": "a", "teacher": "d"})
    assert found == ["it is no longer made from latents", "it is now made from teacher"]


def test_a_setting_that_did_not_exist_is_no_change_but_one_that_is_gone_is() -> None:
    assert changes({"num_heads": 4}) == []
    assert RECORD.changes({"dim": 32, "loss.adversarial.layer": 0}, RECORD.inputs) == [
        "its recipe changed (loss.adversarial null → other settings)"
    ]


def test_a_product_without_inputs_is_never_out_of_date() -> None:
    taken_over = Record(settings={}, inputs={})
    assert taken_over.changes({"dim": 64}, {"codec": "a"}) == []


def test_a_message_names_three_settings_at_most() -> None:
    record = Record(settings=dict.fromkeys("abcde", 1), inputs={})
    (phrase,) = record.changes(dict.fromkeys("abcde", 2), {})
    assert phrase == "its recipe changed (a 1 → 2, b 1 → 2, c 1 → 2, and 2 more)"


def test_a_record_survives_its_file_and_its_origin_changes_with_settings_and_inputs(tmp_path: Path) -> None:
    others = [replace(RECORD, settings={"dim": 32}), replace(RECORD, inputs={"codec": "a"})]
    assert len({record.origin for record in (RECORD, *others)}) == 3
    write_record(tmp_path, replace(RECORD, steps=3, product="ab", stamp=(1, 2)))
    assert read_record(tmp_path) == replace(RECORD, steps=3, product="ab", stamp=(1, 2))
    assert read_record(tmp_path / "elsewhere") is None
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})


def test_a_products_digest_follows_its_content_and_not_its_time(tmp_path: Path) -> None:
    product = tmp_path / "state.pt"
    product.write_bytes(b"first")
    first = RECORD.seen(product)
    assert first.seen(product) is first, "not read again"
    os.utime(product, ns=(1, 1))
    assert first.seen(product).product == first.product
    product.write_bytes(b"other")
    assert first.seen(product).product != first.product


def test_settings_are_selected_by_name_or_by_what_they_are_part_of() -> None:
    flat = flattened(
        {"dim": 32, "a_trainer": {"lr": 0.1, "betas": (0.9, 0.99), "num_steps": 5}, "b": {"lr": 1, "num_steps": 2}}
    )
    assert flat == {
        "dim": 32,
        "a_trainer.lr": 0.1,
        "a_trainer.betas": [0.9, 0.99],
        "a_trainer.num_steps": 5,
        "b.lr": 1,
        "b.num_steps": 2,
    }
    assert selected(flat, ("a_trainer",)) == {"a_trainer.lr": 0.1, "a_trainer.betas": [0.9, 0.99]}, "steps may grow"
    assert selected(flat, ("dim", "b")) == {"dim": 32, "b.lr": 1, "b.num_steps": 2}, "denoising steps are a setting"
