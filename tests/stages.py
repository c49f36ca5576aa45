"""The stages of training, of any size, with batches of random numbers: what tests of meshes run."""

from pathlib import Path

import jax
import numpy as np

from mfm_jax.config import load
from mfm_jax.layers.mixture import MixtureConfig
from mfm_jax.layers.xlstm import XLSTMConfig
from mfm_jax.models.conditions import Conditions
from mfm_jax.models.discriminator import DiscriminatorConfig
from mfm_jax.models.generator import GeneratorConfig, LevelConfig
from mfm_jax.models.summaries import BeatCoder, BeatCoderConfig
from mfm_jax.models.vae import VAEConfig
from mfm_jax.models.vae_heads import SpectralHeadConfig
from mfm_jax.models.vae_pqmf import PqmfConfig
from mfm_jax.training.codec import CodecLoss, CodecObjective
from mfm_jax.training.codec_run import CodecRun
from mfm_jax.training.generator import CoderLoss, CoderObjective, PriorLoss, PriorObjective
from mfm_jax.training.generator_run import GeneratorRun
from mfm_jax.training.vae import VAELossConfig, VAEObjective
from mfm_jax.training.vae_adversarial import AdversarialConfig, TwoPhaseObjective
from mfm_jax.training.vae_run import VAERun, make_objective
from mfm_jax.training.vae_wave import WaveLossConfig, WaveObjective
from tests.models.test_codec import TINY as CODEC

CONFIGS = Path(__file__).parent.parent / "configs"


def level(width, group):
    stack = XLSTMConfig(layers=1, width=16, heads=2, igate_bias=0.0, chunk=8)
    return LevelConfig(xlstm=stack, mixture=MixtureConfig(width=width, group=group, components=2, hidden=16))


GENERATOR = GeneratorConfig(
    section=level(8, 4),
    beat=level(6, 3),
    tick=level(CODEC.score.latent, 4),
    coder=BeatCoderConfig(latent=CODEC.score.latent, hidden=(16,), wide=8, width=6),
    text_width=4,
    text_tokens=2,
    condition_width=8,
    section_width=4,
    section_hidden=16,
    max_sections=8,
)


def numbers(shapes, seed=0):
    """Fill a dict of (shape, type) with numbers that any objective can read."""
    rng = np.random.default_rng(seed)

    def one(name, shape, kind):
        if name.endswith(("rolls", "roll")):
            return (rng.random(shape) < 0.05).astype(kind)
        if name == "frame_ticks":
            return np.broadcast_to(np.arange(shape[1], dtype=kind) / 2, shape)
        if kind is bool:
            return np.ones(shape, bool)
        if kind is np.int16:  # audio
            return rng.integers(-9_000, 9_000, shape).astype(kind)
        if np.issubdtype(kind, np.integer):  # numbers of things, each the first of them
            return np.zeros(shape, kind)
        return rng.standard_normal(shape).astype(kind)

    return {name: one(name, *told) for name, told in shapes.items()}


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
    scalars = [name for name in Conditions._fields if name not in wishes]
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


def tiny(stage):
    """The objective of a stage at a size that compiles in seconds, and the shapes of a batch of 8 for it."""
    if stage == "vae":
        part = PqmfConfig(bands=4, ratios=(2,), capacity=8, dilations=(1,), attenuation=40.0, noise_hop=4)
        losses = WaveLossConfig(
            sizes=(64,), band_sizes=(16,), filters=4, attenuation=40.0, kl_steps=4, keep=1.0
        )
        first = WaveObjective(VAEConfig(encoder=part, head=part, hop=8, latent_dim=8), losses)
        judge = DiscriminatorConfig(scales=1, periods=(2,), capacity=8, layers=1)
        return TwoPhaseObjective(first, AdversarialConfig(discriminator=judge, after_steps=3, every=2)), (
            vae_shapes(8, 256)
        )
    if stage == "spectral":
        head = SpectralHeadConfig(width=8, hidden=8, dilations=(1,), window=512)
        return VAEObjective(VAEConfig(head=head), VAELossConfig()), vae_shapes(8, 1024)
    if stage == "codec":
        return CodecObjective(CODEC, CodecLoss()), codec_shapes(8, 2, 24, 32)
    rng = jax.random.key(3)
    if stage == "coder":
        codec = CodecObjective(CODEC, CodecLoss(stage="score"))
        params = jax.jit(codec.init)(rng, numbers(codec_shapes(1, 2, 24, 32)))
        objective = CoderObjective(GENERATOR, CoderLoss(), CODEC, jax.tree.map(np.asarray, params))
        return objective, coder_shapes(8, 3, CODEC.score.latent)
    z = np.zeros((1, 2, 12, GENERATOR.coder.latent), np.float32)
    coder = jax.jit(BeatCoder(GENERATOR.coder).init)(rng, z)["params"]
    return PriorObjective(GENERATOR, PriorLoss(), jax.tree.map(np.asarray, coder)), (
        prior_shapes(8, 8, 8, 1, GENERATOR)
    )
