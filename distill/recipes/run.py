"""From an environment to a checkpoint, stage by stage. Owns when a stage runs, is skipped, or is out of date.

A finished stage is skipped and one that was stopped continues at its exact step. A stage is out of date when its
settings or an input have changed since: derived data are then made again, anything else needs `redo`, since it took
hours. More steps than before are no change: training continues.
"""

from __future__ import annotations

import logging
import shutil
import time
from pathlib import Path

from distill.recipes.fingerprint import FILE, Record, digest, read_record, write_record
from distill.recipes.products import Products, StageError
from distill.recipes.stages import STAGES, Stage, stage_named
from distill.training.trainer import STATE_FILE, trained_steps

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
            if stage.product is None:
                raise StageError(f"{stage.name} runs each time, so --redo means nothing for it; leave it out")
            self._check_inputs(stage)  # before anything is deleted
            self._discard(stage)
        return self._make(stage, redo_stale=False)

    def take_over(self, name: str) -> None:
        """Record the product of a stage as finished and made from nothing in this run, so it never is out of date."""
        write_record(self.folder_of(name), Record(settings={}, inputs={}, made=time.time_ns()))

    def _make(self, stage: Stage, *, redo_stale: bool) -> bool:
        if not stage.applies(self):
            return True
        logger.info("%s: %s", self.name, stage.name)
        if stage.product is None:
            return stage.run(self)
        self._check_inputs(stage)
        changes = self._changes(stage)
        if changes and not (stage.derived or redo_stale):
            raise StageError(
                f"{stage.name} is out of date: {'; '.join(changes)}. Give --redo to make it again, undo the change, or "
                f"delete {self.folder_of(stage.name) / FILE} to keep the product as it is"
            )
        if changes:
            logger.info("%s: %s, so it is made again", stage.name, "; ".join(changes))
            self._discard(stage)
        elif self._is_done(stage):
            return True
        self._write_record(stage)
        finished = stage.run(self)
        self._write_record(stage)  # again: the product is another one now
        return finished

    def _check_inputs(self, stage: Stage) -> None:
        """Raise StageError for an input that is missing; warn of one that is out of date itself."""
        for source in self._inputs_of(stage):
            if source.product is None:
                continue
            folder = self.folder_of(source.name)
            if not (folder / source.product).exists():
                raise StageError(f"{stage.name} needs {folder / source.product}: run the stage `{source.name}` first")
            if changes := self._changes(source):
                logger.warning("%s: its input %s is out of date: %s", stage.name, source.name, "; ".join(changes))

    def _changes(self, stage: Stage) -> list[str]:
        """Return what has changed since a stage was begun; empty where it was not begun or is up to date."""
        record = self._record(stage)
        return [] if record is None else record.changes(stage.fingerprint(self), self._fingerprints(stage))

    def _is_done(self, stage: Stage) -> bool:
        """Return whether the product is finished. Log where its number of steps is not the one asked for."""
        folder, config = self.folder_of(stage.name), stage.trainer_config(self.preset)
        if stage.product is None or not (folder / stage.product).exists():
            return False
        if config is None:
            return True
        if not (folder / STATE_FILE).exists():
            logger.info("%s: taken over from a checkpoint, so it is not trained here", stage.name)
            return True
        trained = trained_steps(folder)
        if trained < config.num_steps:
            logger.info("%s: %d steps are done; training continues to %d", stage.name, trained, config.num_steps)
        elif trained > config.num_steps:
            logger.info("%s: kept with its %d steps; %d were asked for", stage.name, trained, config.num_steps)
        return trained >= config.num_steps

    def _record(self, stage: Stage) -> Record | None:
        """Return what the stage's product was made from; None where there is none. A product without a record counts
        as up to date, and gets its record here."""
        product = self._newest(stage)
        if product is None:
            return None
        folder = self.folder_of(stage.name)
        record = read_record(folder)
        if record is None:
            made = product.stat().st_mtime_ns
            record = Record(settings=stage.fingerprint(self), inputs=self._fingerprints(stage), made=made)
            logger.info("%s: made before fingerprints were kept; it counts as up to date", stage.name)
            write_record(folder, record)
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
        """Return a stage's fingerprint; where no product is recorded, that of its settings alone."""
        record = None if stage.product is None else self._record(stage)
        return digest(stage.fingerprint(self)) if record is None else record.fingerprint

    def _write_record(self, stage: Stage) -> None:
        record = Record(settings=stage.fingerprint(self), inputs=self._fingerprints(stage), made=time.time_ns())
        write_record(self.folder_of(stage.name), record)

    def _discard(self, stage: Stage) -> None:
        """Delete a stage's product and the state of its training."""
        folder = self.folder_of(stage.name)
        if folder.exists():
            shutil.rmtree(folder)
