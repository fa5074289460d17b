"""From an environment to a checkpoint, stage by stage. Owns when a stage runs, is skipped, or is out of date.

A finished stage is skipped and one that was stopped continues at its exact step. A stage is out of date when its
settings or an input have changed since: derived data are then made again, anything else needs `redo`, since it took
hours. More steps than before are no change: training continues.
"""

from __future__ import annotations

import logging
import shutil
import time
from dataclasses import replace
from pathlib import Path

from distill.recipes.fingerprint import FILE, Record, digest, read_record, write_record
from distill.recipes.former_runs import FORMER_RECORD, former_settings
from distill.recipes.products import Products, StageError
from distill.recipes.stages import STAGES, Stage, stage_named, with_steps
from distill.training.state import STATE_FILE, trained_steps

logger = logging.getLogger(__name__)


class Run(Products):
    """One world's training run: its products, and the stages that make them."""

    def all_stages(self, *, redo: bool = False) -> bool:
        """Run every stage in order; False if time ran out (run again to continue). redo: make stages that are out of
        date again. Raises StageError for one that is out of date otherwise."""
        return all(self._make(stage, redo_stale=redo) for stage in STAGES.values())

    def stage(self, name: str, *, redo: bool = False) -> bool:
        """Run one stage to its end; False if `stop_after_s` came first. redo: from the beginning, even if it is
        finished. Raises StageError for an unknown name, a missing input, or a product that is out of date."""
        stage = stage_named(name)
        if redo:
            self._check_redo(stage)  # before anything is deleted
            self._discard(stage)
        return self._make(stage, redo_stale=False, is_named=True)

    def take_over(self, name: str) -> None:
        """Record the product of a stage as finished and made from nothing in this run, so it never is out of date."""
        write_record(self.folder_of(name), Record(settings={}, inputs={}))

    def _make(self, stage: Stage, *, redo_stale: bool, is_named: bool = False) -> bool:
        """Run a stage unless it is finished. is_named: it was asked for by name, not as one of all."""
        applies = stage.applies(self)
        what = stage.name if applies else f"{stage.name}, which this recipe leaves out"
        logger.info("%s: stage %d of %d: %s", self.name, list(STAGES).index(stage.name) + 1, len(STAGES), what)
        if not applies:
            return True
        self._check_inputs(stage)
        if stage.product is None:
            return stage.run(self)
        asked = self._asked_steps(stage, is_named=is_named)
        changes = self._changes(stage)
        if changes and not (stage.derived or redo_stale):
            raise StageError(self._out_of_date(stage, changes))
        if changes:
            logger.info("%s: %s, so it is made again", stage.name, "; ".join(changes))
            self._discard(stage)
        elif self._is_done(stage, is_named=is_named):
            return True
        folder = self.folder_of(stage.name)
        if self._record(stage) is None:  # before it runs, or a stopped run would count as one without records
            settings, inputs = stage.fingerprint(self), self._fingerprints(stage)
            write_record(folder, Record(settings=settings, inputs=inputs, asked_steps=asked))
        if stage.trainer is not None and not is_named:
            logger.info("%s: training steps to come: %s", self.name, self._steps_to_come(stage))
        begun = time.monotonic()
        finished = stage.run(self)
        logger.info("%s took %.1f minutes", stage.name, (time.monotonic() - begun) / 60)
        if finished and not (folder / stage.product).exists():
            raise StageError(f"{stage.name} ended without its product {folder / stage.product}: run it again")
        record = self._record(stage)
        if finished and record is not None and (folder / STATE_FILE).exists():
            write_record(folder, replace(record, steps=trained_steps(folder)))
        return finished

    def _steps_to_come(self, stage: Stage) -> str:
        """Return how many steps a stage and those after it have yet to train. Their minutes are unknown before they
        run: a step costs another time in each stage."""
        names = list(STAGES)
        later = [STAGES[name] for name in names[names.index(stage.name) :]]
        steps = {source.name: self._remaining_steps(source) for source in later if source.applies(self)}
        return ", ".join(f"{name} {number:,}" for name, number in steps.items() if number > 0)

    def _remaining_steps(self, stage: Stage) -> int:
        config, folder = stage.trainer_config(self.preset), self.folder_of(stage.name)
        if config is None:
            return 0
        record = read_record(folder)
        asked = None if record is None else record.asked_steps
        done = trained_steps(folder) if (folder / STATE_FILE).exists() else 0
        return (asked or config.num_steps) - done

    def _asked_steps(self, stage: Stage, *, is_named: bool) -> int | None:
        """Return how many steps `--steps` asks for, now or when the stage was last named, and make the preset's trainer
        take as many; None for the recipe's."""
        record = self._record(stage)
        steps = self.asked_steps if is_named else None if record is None else record.asked_steps
        if record is not None and record.asked_steps != steps:
            write_record(self.folder_of(stage.name), replace(record, asked_steps=steps))
        if steps is None:
            return None
        if not is_named:
            logger.info(
                "%s: %d steps, as --steps asked for; `--stage %s` takes the recipe's", stage.name, steps, stage.name
            )
        self.preset = with_steps(self.preset, stage.name, steps)
        return steps

    def _check_redo(self, stage: Stage) -> None:
        """Raise an error if a stage cannot be made again."""
        if stage.product is None:
            raise StageError(f"{stage.name} runs each time, so --redo means nothing for it; leave it out")
        if not stage.applies(self):
            raise StageError(f"this recipe has no stage {stage.name}, so it cannot be made again; leave --redo out")
        self._check_inputs(stage)
        stage.fingerprint(self)
        self._fingerprints(stage)

    def _out_of_date(self, stage: Stage, changes: list[str]) -> str:
        return (
            f"{stage.name} is out of date: {'; '.join(changes)}. Give --redo to make it again, undo the change, or "
            f"delete {self.folder_of(stage.name) / FILE} to keep the product as it is"
        )

    def _check_inputs(self, stage: Stage) -> None:
        """Raise StageError for an input that is missing. One that is out of date itself is logged, and refused by a
        stage that only puts products together."""
        for source in self._inputs_of(stage):
            if source.product is None:
                continue
            folder = self.folder_of(source.name)
            if not (folder / source.product).exists():
                raise StageError(f"{stage.name} needs {folder / source.product}: run the stage `{source.name}` first")
            if changes := self._changes(source):
                if stage.product is None:
                    raise StageError(f"{stage.name} stops: {self._out_of_date(source, changes)}")
                logger.warning("%s: its input %s is out of date: %s", stage.name, source.name, "; ".join(changes))

    def _changes(self, stage: Stage) -> list[str]:
        """Return what has changed since a stage was begun; empty where it was not begun or is up to date."""
        record = self._record(stage)
        return [] if record is None else record.changes(stage.fingerprint(self), self._fingerprints(stage))

    def _is_done(self, stage: Stage, *, is_named: bool) -> bool:
        """Return whether the product is finished. Log if it has another number of steps than the recipe.

        A product that is written once training has ended (the codec's) is kept even if the recipe has more steps,
        unless its stage is named: everything after it depends on it.
        """
        folder, config = self.folder_of(stage.name), stage.trainer_config(self.preset)
        if stage.product is None or not (folder / stage.product).exists():
            return False
        if config is None:
            return True
        if not (folder / STATE_FILE).exists():
            logger.info("%s: taken over from a checkpoint, so it is not trained here", stage.name)
            return True
        steps = trained_steps(folder)
        if stage.product != STATE_FILE:
            record = self._record(stage)
            steps = steps if record is None or record.steps is None else record.steps
            if not is_named:
                if steps < config.num_steps:
                    logger.info(
                        "%s: kept with its %d steps; `--stage %s` trains it to the recipe's %d",
                        stage.name, steps, stage.name, config.num_steps,
                    )  # fmt: skip
                return True
        if steps < config.num_steps:
            logger.info("%s: %d steps are done; training continues to %d", stage.name, steps, config.num_steps)
        elif steps > config.num_steps:
            logger.info("%s: kept with its %d steps; %d were asked for", stage.name, steps, config.num_steps)
        return steps >= config.num_steps

    def _record(self, stage: Stage) -> Record | None:
        """Return what the stage's product was made from; None if it was never begun. A product without a record gets
        its record here."""
        product = self._newest(stage)
        folder = self.folder_of(stage.name)
        record = read_record(folder)
        if product is None:
            return record
        current = (record or self._adopted(stage)).seen(product)
        if current != record:
            write_record(folder, current)
        return current

    def _adopted(self, stage: Stage) -> Record:
        """Return the record of a product without one, which counts as up to date. Raises StageError if it says that it
        was trained with other settings."""
        settings, folder = stage.fingerprint(self), self.folder_of(stage.name)
        record = Record(settings={**settings, **former_settings(folder, settings)}, inputs=self._fingerprints(stage))
        if changes := record.changes(settings, record.inputs):
            raise StageError(
                f"{stage.name} was trained with another recipe: {'; '.join(changes)}. Name that recipe, or delete "
                f"{folder / FORMER_RECORD} to use the product with this one"
            )
        logger.info("%s: made before fingerprints were kept; it counts as up to date", stage.name)
        return record

    def _newest(self, stage: Stage) -> Path | None:
        """Return the stage's product, or the state of its training while it is not finished; None without either."""
        paths = [self.folder_of(stage.name) / file for file in (stage.product, STATE_FILE) if file is not None]
        return next((path for path in paths if path.exists()), None)

    def _inputs_of(self, stage: Stage) -> list[Stage]:
        sources = [STAGES[name] for name in stage.inputs(self)]
        return [source for source in sources if source.applies(self)]

    def _fingerprints(self, stage: Stage) -> dict[str, str]:
        """Return the fingerprint of each input, by name."""
        return {source.name: self._fingerprint(source) for source in self._inputs_of(stage)}

    def _fingerprint(self, stage: Stage) -> str:
        """Return a stage's fingerprint: the digest of its product, or of what derived data are made from."""
        record = None if stage.product is None else self._record(stage)
        if record is None:
            return digest(stage.fingerprint(self))
        return record.origin if stage.derived else record.product

    def _discard(self, stage: Stage) -> None:
        """Delete a stage's product and the state of its training."""
        folder = self.folder_of(stage.name)
        if folder.exists():
            shutil.rmtree(folder)
