"""The stages of training, of any size, with batches of random numbers: what tests of meshes run."""

from pathlib import Path

import jax
import numpy as np

from mfm_jax.config import load
from mfm_jax.models.conditions import Conditions
from mfm_jax.models.summaries import BeatCoder
from mfm_jax.training.codec import CodecObjective
from mfm_jax.training.codec_run import CodecRun
from mfm_jax.training.generator import CoderObjective, PriorObjective
from mfm_jax.training.generator_run import GeneratorRun
from mfm_jax.training.vae_run import VAERun, make_objective

CONFIGS = Path(__file__).parent.parent / "configs"


def numbers(shapes, seed=0):
    """Fill a dict of (shape, type) with numbers that any objective can read."""
    rng = np.random.default_rng(seed)

    def one(shape, kind):
        if kind is bool:
            return np.ones(shape, bool)
        if np.issubdtype(kind, np.integer):
            return rng.integers(0, 8, shape).astype(kind)
        return rng.standard_normal(shape).astype(kind)

    return {name: one(*told) for name, told in shapes.items()}


def vae_shapes(batch, samples):
    return {"audio": ((batch, samples), np.int16)}


def codec_shapes(batch, parts, ticks, frames):
    return {
        "latent": ((batch, frames, 256), np.float16),
        "frame_ticks": ((batch, frames), np.float32),
        "tick_mask": ((batch, ticks), bool),
        "rolls": ((batch, parts, ticks, 128, 3), np.float32),
        "categories": ((batch, parts), np.int32),
        "percussion": ((batch, parts), bool),
        "instrument_mask": ((batch, parts), bool),
        "frame_roll": ((batch, frames, 128, 3), np.float32),
        "query_category": ((batch,), np.int32),
        "query_percussion": ((batch,), bool),
        "clean": ((batch,), bool),
    }


def coder_shapes(batch, beats, latent=64):
    return {
        "z": ((batch, beats, 12, latent), np.float16),
        "category": ((batch,), np.int32),
        "percussion": ((batch,), bool),
    }


def prior_shapes(batch, beats, tick_batch, tick_beats, model):
    plan = {name: ((batch, beats), np.float32) for name in ("position", "length", "phase", "bar", "passed")}
    wishes = {
        "text_pooled": ((batch, model.text_width), np.float16),
        "text_tokens": ((batch, model.text_tokens, model.text_width), np.float16),
        "text_mask": ((batch, model.text_tokens), bool),
        "instruments": ((batch, 19), np.float32),
        "metre": ((batch, 2), np.float32),
        "key": ((batch,), np.int32),
    }
    scalars = set(Conditions._fields) - wishes.keys()
    wishes |= {name: ((batch,), np.float32) for name in scalars}
    latent = model.tick.mixture.width
    return {
        **plan,
        **{name: ((batch, beats), np.int32) for name in ("section", "label")},
        "facts": ((batch, beats, 4), np.float32),
        "mask": ((batch, beats), bool),
        "n_sections": ((batch,), np.int32),
        "lag": ((batch,), np.int32),
        "beats": ((batch, beats, model.coder.width), np.float16),
        "tick_z": ((tick_batch, tick_beats, 12, latent), np.float16),
        "tick_beats": ((tick_batch, tick_beats + 1, model.coder.width), np.float16),
        **{f"wish_{name}": told for name, told in wishes.items()},
    }


def structs(shapes):
    return {name: jax.ShapeDtypeStruct(*told) for name, told in shapes.items()}


def paper(stage):
    """The objective of a stage of the paper's configuration, and the shapes of a small batch for it."""
    if stage == "vae":
        run = load(VAERun, CONFIGS / "vae/paper.yaml", "clips=x", "out=x", "wave_losses.keep=1.0")
        return make_objective(run, None), structs(vae_shapes(8, run.data.frames * run.model.hop))
    if stage == "codec":
        run = load(CodecRun, CONFIGS / "codec/paper.yaml", "latents=x", "out=x")
        return CodecObjective(run.model, run.stages[0].loss), structs(codec_shapes(8, 2, 48, 64))
    run = load(GeneratorRun, CONFIGS / "generator/paper.yaml", "data.z=x", "data.codec=x", "out=x")
    z = jax.ShapeDtypeStruct((1, 2, 12, run.model.coder.latent), np.float32)
    if stage == "coder":
        codec, batch = paper("codec")
        frozen = jax.eval_shape(codec.init, jax.random.key(0), batch)
        objective = CoderObjective(run.model, run.coder_loss, codec.model.config, frozen)
        return objective, structs(coder_shapes(8, 17))
    coder = jax.eval_shape(BeatCoder(run.model.coder).init, jax.random.key(0), z)["params"]
    objective = PriorObjective(run.model, run.prior_loss, coder)
    return objective, structs(prior_shapes(8, 64, 8, 4, run.model))
