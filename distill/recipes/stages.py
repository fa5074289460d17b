"""The stages from an environment to a checkpoint, as data. Owns what each reads and depends on; `run` walks them.

To add a stage: write its task, give the preset its settings, and add its function in `build`, an entry here and its
name in `names`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

from distill.recipes import build
from distill.recipes.fingerprint import Settings, flattened, selected
from distill.recipes.names import STAGE_ALIASES
from distill.recipes.preset import Preset
from distill.recipes.products import CODEC_FILE, LATENTS_FILE, Products, StageError
from distill.training.state import STATE_FILE
from distill.training.trainer import TrainerConfig
from world.errors import LightconeError


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """One stage.

    inputs: the stages whose products it reads; those that do not apply are ignored. run: makes the product, or
    continues it where it was stopped, and returns whether it is finished. fingerprint: the settings that it depends
    on. product: the file in its folder that tells a finished or usable product; None for a stage that runs each time.
    trainer: the preset's field with its trainer, None for a stage that trains nothing. applies: whether this run has
    the stage. derived: made in minutes, so it is made again without asking when it is out of date.
    """

    name: str
    inputs: Callable[[Products], tuple[str, ...]]
    run: Callable[[Products], bool]
    fingerprint: Callable[[Products], Settings]
    product: str | None = STATE_FILE
    trainer: str | None = None
    applies: Callable[[Products], bool] = lambda _: True
    derived: bool = False

    def trainer_config(self, preset: Preset) -> TrainerConfig | None:
        """Return the preset's trainer of this stage; None where it trains nothing."""
        config: TrainerConfig | None = None if self.trainer is None else getattr(preset, self.trainer)
        return config


def stage_named(name: str) -> Stage:
    """Return a stage by its name or former name. Raises StageError naming the choices."""
    stage = STAGES.get(STAGE_ALIASES.get(name, name))
    if stage is None:
        raise StageError(f"stage {name!r}: choose one of {', '.join(STAGES)}")
    return stage


def with_steps(preset: Preset, stage: str | None, steps: int) -> Preset:
    """Return the preset with another number of steps for one stage. Raises LightconeError unless the stage trains."""
    found = None if stage is None else stage_named(stage)
    config = None if found is None else found.trainer_config(preset)
    if found is None or found.trainer is None or config is None:
        given = "no stage was named" if stage is None else f"{stage} trains nothing"
        raise LightconeError(f"--steps needs a --stage that trains, but {given}")
    if steps < 1:
        raise LightconeError(f"--steps {steps}: must be at least 1")
    changed: dict[str, Any] = {found.trainer: replace(config, num_steps=steps)}
    return replace(preset, **changed)


def reads(*names: str) -> Callable[[Products], tuple[str, ...]]:
    """Return the `inputs` of a stage that always reads the same stages."""
    return lambda _: names


def settings(*names: str) -> Callable[[Products], Settings]:
    """Return the `fingerprint` of a stage that depends on these fields of the preset, or parts of fields ("a.b")."""
    return lambda products: selected(flattened(asdict(products.preset)), names)


def _recorded(products: Products) -> Settings:
    """Return what of the recorded training data later stages depend on."""
    dataset = products.dataset()
    spec = asdict(dataset.spec)
    depends = {name: spec[name] for name in ("height", "width", "buttons", "axes", "state_variables", "continuing")}
    collected = {name: value for name, value in dataset.collected.items() if name != "num_heldout"}
    return flattened(depends | collected)


def _fine_tuning_inputs(products: Products) -> tuple[str, ...]:
    """Return the inputs of `decoder_finetuning`; the stage `decoder` before it may have been left out."""
    decoder = ("decoder",) if products.has_weights("decoder") else ()
    return ("collect", "codec", *decoder, "state_estimator", products.shipped_stage())


def _exported(products: Products) -> tuple[str, ...]:
    """Return the stages whose products make the world that is played."""
    decoders = (name for name in ("decoder", "decoder_finetuning") if products.has_weights(name))
    return ("codec", "state_estimator", *decoders, products.shipped_stage())


_IN_ORDER = (
    Stage(name="collect", inputs=reads(), run=build.collect_data, fingerprint=_recorded, product=None),
    Stage(
        name="codec",
        inputs=reads("collect"),
        run=build.train_codec,
        fingerprint=settings("codec_channels", "codec_widths", "codec_loss", "codec_episodes", "codec_trainer"),
        product=CODEC_FILE,
        trainer="codec_trainer",
    ),
    Stage(
        name="decoder",
        inputs=reads("collect", "codec"),
        run=build.train_decoder,
        fingerprint=settings("decoder_loss", "codec_episodes", "decoder_trainer"),
        trainer="decoder_trainer",
        applies=lambda products: products.preset.decoder_trainer is not None,
    ),
    Stage(
        name="latents",
        inputs=reads("collect", "codec"),
        run=build.encode_latents,
        fingerprint=settings(),
        product=LATENTS_FILE,
        derived=True,
    ),
    Stage(
        name="state_estimator",
        inputs=reads("codec", "latents"),
        run=build.train_state_estimator,
        fingerprint=settings("state_estimator", "state_estimator_trainer"),
        trainer="state_estimator_trainer",
        applies=Products.tracks_state,
    ),
    Stage(
        name="warm_up",
        inputs=reads("latents", "state_estimator"),
        run=build.train_warm_up,
        fingerprint=settings(
            "dim",
            "ffn_dim",
            "num_layers",
            "num_heads",
            "window_frames",
            "teacher_trainer.seed",
            "warm_up_clip_frames",
            "warm_up",
            "warm_up_trainer",
        ),
        trainer="warm_up_trainer",
    ),
    Stage(
        name="teacher",
        inputs=reads("latents", "state_estimator", "warm_up"),
        run=build.train_teacher,
        fingerprint=settings("teacher", "teacher_trainer"),
        trainer="teacher_trainer",
    ),
    Stage(
        name="teacher_forced",
        inputs=lambda products: ("latents", "state_estimator", products.preset.student_from),
        run=build.train_teacher_forced,
        fingerprint=settings("student_clip_frames", "teacher_forced", "teacher_forced_trainer"),
        trainer="teacher_forced_trainer",
    ),
    Stage(
        name="few_step",
        inputs=reads("latents", "state_estimator", "teacher_forced"),
        run=build.train_few_step,
        fingerprint=settings("student_clip_frames", "few_step", "few_step_trainer"),
        trainer="few_step_trainer",
    ),
    Stage(
        name="distilled",
        inputs=lambda products: ("latents", "state_estimator", "few_step", build.score_stage(products)),
        run=build.train_distilled,
        fingerprint=settings("distilled", "distilled_trainer"),
        trainer="distilled_trainer",
    ),
    Stage(
        name="decoder_finetuning",
        inputs=_fine_tuning_inputs,
        run=build.finetune_decoder,
        fingerprint=settings("decoder_loss", "codec_episodes", "decoder_finetuning", "decoder_finetuning_trainer"),
        trainer="decoder_finetuning_trainer",
        applies=lambda products: products.preset.decoder_finetuning_trainer is not None,
    ),
    Stage(
        name="export",
        inputs=_exported,
        run=build.export_checkpoint,
        fingerprint=settings(),
        product=None,
    ),
)

STAGES = {stage.name: stage for stage in _IN_ORDER}
"""By name, in order."""
