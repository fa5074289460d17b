"""How each stage makes its product. Owns the tasks with their inputs; which stage comes when is in `stages`.

Each function returns whether the product is finished: False where `stop_after_s` came first. Called again, it
continues.
"""

from __future__ import annotations

import logging
from dataclasses import asdict

import torch

from distill.codec.decoder_finetuning import DecoderFinetuningTask
from distill.codec.state_estimator import StateEstimatorTask
from distill.codec.tasks import CodecTask, DecoderTask, fix_background, fix_statistics
from distill.data.clips import Dataset, require_clips
from distill.data.collect import CollectConfig, collect, collect_config
from distill.data.latents import ClipSampler, encode_dataset, typical_stretch
from distill.recipes.export import export_world, provenance
from distill.recipes.fingerprint import flattened
from distill.recipes.identity import check_target
from distill.recipes.products import CODEC_FILE, Products
from distill.tasks.causal_consistency import ConsistencyTask
from distill.tasks.self_forcing import SelfForcingTask
from distill.tasks.teacher import TeacherTask
from distill.tasks.teacher_forcing import TeacherForcingTask
from distill.training.blocks import compile_blocks
from distill.training.state import load_product
from distill.training.task import Task
from distill.training.trainer import Trainer, TrainerConfig
from world.codecs.convolutional import ConvolutionalCodec
from world.model.transformer import Transformer

logger = logging.getLogger(__name__)

STATE_ESTIMATOR_CLIP_FRAMES = 12


def collect_data(products: Products) -> bool:
    """Record or import data that are missing. Existing data stay as they were recorded, whatever the recipe says.

    Raises DatasetError where no stream is long enough for the recipe.
    """
    _make_data(products)
    require_clips(products.dataset(), products.preset.longest_clip_frames)
    return True


def _make_data(products: Products) -> None:
    data, config = products.folder_of("collect"), products.preset.collect
    if products.videos is not None:
        from distill.data.environments.video import import_videos  # here, since it loads the video libraries

        import_videos(products.videos, data, height=config.height, width=config.width, quiet=products.quiet)
        return
    before = Dataset.open(data).collected if (data / "dataset.json").exists() else {}
    if "videos" in before:
        return
    if before.get("num_train"):  # perhaps recorded by `lightcone collect` with other arguments
        config = _as_recorded(config, collect_config(before))
    collect(data, config, quiet=products.quiet)  # fills gaps; after an evaluation only held-out streams exist


def _as_recorded(config: CollectConfig, recorded: CollectConfig) -> CollectConfig:
    """Return how the data was recorded, and log where that is not what the recipe says."""
    before = flattened(asdict(recorded))
    other = [
        f"{name} {before[name]} (recipe: {value})"
        for name, value in flattened(asdict(config)).items()
        if before[name] != value
    ]
    if other:
        logger.info("collect: training uses the data as recorded, with %s", ", ".join(other))
    return recorded


def train_codec(products: Products) -> bool:
    """Train encoder and decoder together; then set the exact latent statistics."""
    preset, dataset = products.preset, products.dataset()
    torch.manual_seed(preset.codec_trainer.seed)
    codec = ConvolutionalCodec(preset.codec_config(dataset.spec)).channels_last()
    fix_background(codec, dataset)
    task = CodecTask(codec, dataset, preset.codec_loss, num_episodes=preset.codec_episodes)
    if not train(products, "codec", task, preset.codec_trainer):
        return False
    codec.load_state_dict(load_product(products.folder_of("codec"))[0])
    fix_statistics(codec, dataset)
    save_codec(codec, products)
    return True


def save_codec(codec: ConvolutionalCodec, products: Products) -> None:
    """Write the product of the stage `codec`; the file appears complete or not at all."""
    folder = products.folder_of("codec")
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f"{CODEC_FILE}.partial"
    torch.save(codec.state_dict(), partial)
    partial.replace(folder / CODEC_FILE)


def train_decoder(products: Products) -> bool:
    """Train the decoder alone, for the latents that the encoder now gives."""
    preset = products.preset
    assert preset.decoder_trainer is not None
    codec = products.codec(later_decoders=False).train()
    task = DecoderTask(codec, products.dataset(), preset.decoder_loss, num_episodes=preset.codec_episodes)
    return train(products, "decoder", task, preset.decoder_trainer)


def encode_latents(products: Products) -> bool:
    """Encode the training streams."""
    encode_dataset(products.codec(later_decoders=False), products.dataset(), products.latents, quiet=products.quiet)
    return True


def train_state_estimator(products: Products) -> bool:
    """Train the codec to estimate the state variables from a picture."""
    clips = ClipSampler(products.latents, STATE_ESTIMATOR_CLIP_FRAMES, still_share=0.0)
    task = StateEstimatorTask(products.codec(), clips, products.preset.state_estimator)
    return train(products, "state_estimator", task, products.preset.state_estimator_trainer)


def train_warm_up(products: Products) -> bool:
    """Train a causal network from nothing by teacher forcing."""
    preset = products.preset
    task = TeacherForcingTask(_trainable(products), products.clips(preset.warm_up_clip_frames), preset.warm_up)
    return train(products, "warm_up", task, preset.warm_up_trainer)


def train_teacher(products: Products) -> bool:
    """Train the bidirectional teacher, from the warm-up."""
    preset = products.preset
    clips = products.clips(preset.window_frames + 1)
    task = TeacherTask(_trainable(products, "warm_up"), clips, preset.teacher)
    return train(products, "teacher", task, preset.teacher_trainer)


def train_teacher_forced(products: Products) -> bool:
    """Train the causal student by teacher forcing, from the network that the preset names."""
    preset = products.preset
    clips = products.clips(preset.student_clip_frames)
    task = TeacherForcingTask(_trainable(products, preset.student_from), clips, preset.teacher_forced)
    return train(products, "teacher_forced", task, preset.teacher_forced_trainer)


def train_few_step(products: Products) -> bool:
    """Make the student few-step by consistency distillation."""
    preset = products.preset
    student, causal_teacher = products.transformer("teacher_forced"), products.transformer("teacher_forced")
    task = ConsistencyTask(student, causal_teacher, products.clips(preset.student_clip_frames), preset.few_step)
    return train(products, "few_step", task, preset.few_step_trainer)


def train_distilled(products: Products) -> bool:
    """Distil the few-step student on its own rollouts."""
    preset = products.preset
    shortest, longest = preset.distilled.new_frames[1], preset.distilled.rollout_frames
    available = typical_stretch(products.latents) - preset.window_frames
    clips = products.clips(preset.window_frames + max(shortest, min(longest, available)))
    teacher = products.transformer(score_stage(products))
    task = SelfForcingTask(products.transformer("few_step"), teacher, clips, preset.distilled)
    return train(products, "distilled", task, preset.distilled_trainer)


def score_stage(products: Products) -> str:
    """Return the stage whose network is the teacher of `distilled`."""
    return "teacher_forced" if products.preset.distilled.causal_scores else "teacher"


def finetune_decoder(products: Products) -> bool:
    """Train the decoder on the student's predictions too."""
    preset = products.preset
    assert preset.decoder_finetuning_trainer is not None
    task = DecoderFinetuningTask(
        products.codec().train(),
        products.transformer(products.shipped_stage()),
        products.dataset(),
        preset.decoder_loss,
        preset.decoder_finetuning,
        num_episodes=preset.codec_episodes,
    )
    return train(products, "decoder_finetuning", task, preset.decoder_finetuning_trainer)


def export_checkpoint(products: Products) -> bool:
    """Write the checkpoint folder."""
    stage = products.shipped_stage()
    facts = provenance(products.name, products.dataset())
    check_target(products.checkpoint, products.name, facts["environment"], videos="videos" in facts)
    export_world(
        products.checkpoint,
        products.name,
        products.preset,
        products.dataset(),
        products.codec(),
        stage,
        products.transformer(stage),
        products.transformer("teacher") if products.has_weights("teacher") else None,
    )
    return True


def _trainable(products: Products, stage: str | None = None) -> Transformer:
    """Return a transformer to train, compiled where the preset says so."""
    network = products.transformer(stage)
    return compile_blocks(network) if products.preset.compile_blocks else network


def train(products: Products, stage: str, task: Task, config: TrainerConfig) -> bool:
    """Train in the stage's folder; return whether it is finished."""
    folder = products.folder_of(stage)
    folder.mkdir(parents=True, exist_ok=True)
    return Trainer(task, config, folder).run(stop_after_s=products.stop_after_s, quiet=products.quiet)
