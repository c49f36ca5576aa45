"""Every stage of a run as shapes: what can be compiled and counted without data, weights or memory.

Shapes of batches are not written down here: the real makers of batches cut one from a made-up piece, so
that what is compiled ahead of time is what trains.
"""

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import yaml
from jaxtyping import Array

from mfm_jax.axes import HOP, TICKS_PER_BEAT, VAE_LATENT, Params
from mfm_jax.config import load
from mfm_jax.models.codec import CodecConfig
from mfm_jax.models.generator import GeneratorConfig
from mfm_jax.models.summaries import BeatCoder
from mfm_jax.music.facts import measure
from mfm_jax.music.instruments import instrument_of
from mfm_jax.music.notes import Score, Track
from mfm_jax.music.tempo import TempoMap
from mfm_jax.records import pack, pack_score
from mfm_jax.training.codec import CodecObjective
from mfm_jax.training.codec_run import CodecRun
from mfm_jax.training.compositions import bar_places, beat_facts
from mfm_jax.training.data import ClipData, cut_audio, cut_codec
from mfm_jax.training.generator import CoderObjective, PriorObjective
from mfm_jax.training.generator_run import GeneratorRun
from mfm_jax.training.loop import TrainConfig
from mfm_jax.training.score_batches import ScoreData, cut_score
from mfm_jax.training.state import Batch, Objective, Staged, TrainState, initial_state
from mfm_jax.training.stretches import Stretch, Text, coder_batches, prior_batches, stretch_of
from mfm_jax.training.vae_run import VAERun, make_objective

BEATS = 16  # of the made-up piece

Run = VAERun | CodecRun | GeneratorRun


class Outline(NamedTuple):
    """One `fit` of a run.

    Attributes:
        name: of the stage.
        objective: as in the run, but its frozen parameters are shapes.
        batch: shapes of a global batch.
        train: its settings.
    """

    name: str
    objective: Objective
    batch: Batch
    train: TrainConfig


def load_run(*sources: str) -> Run:
    """Read the config of any run; folders that it needs may be missing.

    Raises:
        ValueError: the config is bad.
    """
    values: dict[str, Any] = {}
    for source in sources:
        if "=" not in source:
            values |= yaml.safe_load(Path(source).read_text()) or {}
    if {"stages", "latents"} & values.keys():
        return load(CodecRun, "latents=unused", "out=unused", *sources)
    if {"coder", "prior", "batches"} & values.keys():
        return load(GeneratorRun, "data.z=unused", "data.codec=unused", "out=unused", *sources)
    return load(VAERun, "clips=unused", "out=unused", *sources)


def outlines(run: Run, codec: CodecConfig, batch: int | None = None) -> list[Outline]:
    """Give every stage of a run.

    Args:
        run: from `load_run`.
        codec: of the codec that a generator's run reads; unused by other runs.
        batch: examples in the global batch in place of the config's; what has another number of examples in
            a batch keeps its proportion.
    """
    if isinstance(run, VAERun):
        return [_vae(run, batch)]
    if isinstance(run, CodecRun):
        return list(_codec(run, batch))
    return [*_coder(run, codec, batch), _prior(run, batch)]


def _vae(run: VAERun, batch: int | None) -> Outline:
    data = dataclasses.replace(run.data, batch=batch or run.data.batch)
    blob = pack({"audio": np.zeros(HOP, np.int16)}, {})
    shapes = _stacked(cut_audio(data, blob, np.random.default_rng(0)), data.batch)
    return Outline("vae", make_objective(run, None), shapes, run.train)


def _codec(run: CodecRun, batch: int | None) -> Iterator[Outline]:
    for stage in run.stages:
        settings: ScoreData | ClipData = stage.scores or stage.data
        size = batch or settings.batch
        rng = np.random.default_rng(0)
        if isinstance(settings, ScoreData):
            example = cut_score(settings, pack_score(made_up_score(), {}, {}), rng)
        else:
            latent = {"latent": np.zeros((8, VAE_LATENT), np.float16)}
            example = cut_codec(settings, pack_score(made_up_score(), latent, {}), rng)
        objective = CodecObjective(run.model, stage.loss)
        yield Outline(stage.name, objective, _stacked(example, size), stage.train)


def _coder(run: GeneratorRun, codec: CodecConfig, batch: int | None) -> Iterator[Outline]:
    settings = dataclasses.replace(run.batches, coder_batch=batch or run.batches.coder_batch)
    frozen = codec_shapes(codec)
    one = dataclasses.replace(settings, coder_batch=1)
    example = next(coder_batches([made_up_stretch()], one, 0))
    shapes = {name: _shape(array, settings.coder_batch) for name, array in example.items()}
    if run.coder is not None:
        yield Outline("coder", CoderObjective(run.model, run.coder_loss, codec, frozen), shapes, run.coder)


def _prior(run: GeneratorRun, batch: int | None) -> Outline:
    settings = run.batches
    if batch is not None:
        ticks = max(1, settings.tick_batch * batch // settings.batch)
        settings = dataclasses.replace(settings, batch=batch, tick_batch=ticks)
    stretch, model = made_up_stretch(), run.model
    text = Text(
        np.zeros((1, model.text_width), np.float16),
        np.zeros((1, model.text_tokens, model.text_width), np.float16),
        np.ones((1, model.text_tokens), bool),
        {caption: 0 for caption in stretch.captions},
    )
    few = dataclasses.replace(settings, batch=2, tick_batch=1)  # the leading axis tells which is which
    beats = np.zeros((BEATS, model.coder.width), np.float16)
    example = next(prior_batches([stretch], [beats], text, few, 0))
    sizes = {few.batch: settings.batch, few.tick_batch: settings.tick_batch}
    shapes = {name: _shape(array, sizes[array.shape[0]]) for name, array in example.items()}
    objective = PriorObjective(model, run.prior_loss, coder_shapes(model))
    return Outline("prior", objective, shapes, run.prior)


def codec_shapes(config: CodecConfig) -> Params:
    """Shapes of a codec's parameters."""
    example = cut_codec(
        ClipData(frames=16, ticks=24, instruments=1),
        pack_score(made_up_score(), {"latent": np.zeros((8, VAE_LATENT), np.float16)}, {}),
        np.random.default_rng(0),
    )
    batch = _stacked(example, 1)
    return _evaluated(CodecObjective(config, CodecRun(latents="", out="").stages[0].loss), batch)


def coder_shapes(config: GeneratorConfig) -> Params:
    """Shapes of a beat coder's parameters."""
    z = jax.ShapeDtypeStruct((1, 2, TICKS_PER_BEAT, config.coder.latent), np.float32)
    params: Params = jax.eval_shape(BeatCoder(config.coder).init, jax.random.key(0), z)["params"]
    return params


def state_bytes(outline: Outline) -> int:
    """Bytes of parameters, averages, moments and of what is frozen, over all devices, each once."""
    objective = outline.objective
    parts = tuple(objective.optims) if isinstance(objective, Staged) else ()

    def begin(rng: Array, batch: Batch) -> TrainState:
        return initial_state(objective.init(rng, batch), outline.train, parts)

    state = jax.eval_shape(begin, jax.random.key(0), outline.batch)
    leaves = jax.tree.leaves((state, getattr(objective, "frozen", {})))
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in leaves)


def trained_shapes(outline: Outline) -> Params:
    """Shapes of all parameters that a stage leaves behind: its own and the frozen ones."""
    params = _evaluated(outline.objective, outline.batch)
    return {**params, **getattr(outline.objective, "frozen", {})}


def _evaluated(objective: Objective, batch: Batch) -> Params:
    params: Params = jax.eval_shape(objective.init, jax.random.key(0), batch)
    return params


def made_up_score() -> Score:
    """A scale of `BEATS` notes on the piano."""
    notes = [[12.0 * n, 12.0 * n + 12, 60 + n % 12, 80] for n in range(BEATS)]
    return Score((Track(instrument_of(0), np.array(notes)),), TempoMap.constant(120), "A scale")


def made_up_stretch() -> Stretch:
    """That scale as a record of z."""
    score = made_up_score()
    phase, bar = bar_places(score, BEATS)
    z = np.zeros((BEATS, TICKS_PER_BEAT, 64), np.float16)
    told = {"id": "", "corpus": "", "start": 0, "total": BEATS, "tonic": None}
    facts = {**told, "instruments": [1], "measured": measure(score, {}).to_json(), "captions": ["a scale"]}
    arrays = {"z": z, "phase": phase, "bar": bar, **beat_facts(score, score.by_category(), BEATS)}
    return stretch_of(arrays, facts)


def _stacked(example: dict[str, Any], batch: int) -> Batch:
    """Shapes of a batch of examples."""
    arrays = ((name, np.asarray(value)) for name, value in example.items())
    return {name: jax.ShapeDtypeStruct((batch, *array.shape), array.dtype) for name, array in arrays}


def _shape(array: np.ndarray, batch: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((batch, *array.shape[1:]), array.dtype)
