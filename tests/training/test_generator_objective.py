"""The three levels learn: each beats its start and a Gaussian that knows nothing but its own targets."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mfm_jax.layers.mixture import MixtureConfig
from mfm_jax.layers.xlstm import XLSTMConfig
from mfm_jax.models.conditions import unknown
from mfm_jax.models.generator import GeneratorConfig, LevelConfig
from mfm_jax.models.plan import Plan
from mfm_jax.models.summaries import BeatCoder, BeatCoderConfig
from mfm_jax.training.generator import PriorLoss, PriorObjective

LATENT, BEAT, SUMMARY, FACTS = 4, 6, 4, 4
SECTIONS, LENGTH = 4, 8
N = SECTIONS * LENGTH
STEPS, RATE, PIECES = 80, 2e-2, 16
QUICK = {"xla_backend_optimization_level": 0}  # compiling takes longer than running here


def level(width, group):
    stack = XLSTMConfig(layers=1, width=16, heads=2, igate_bias=0.0, chunk=16)
    return LevelConfig(xlstm=stack, mixture=MixtureConfig(width=width, group=group, components=4, hidden=16))


CONFIG = GeneratorConfig(
    section=level(SUMMARY + FACTS, 4),
    beat=level(BEAT, 3),
    tick=level(LATENT, 4),
    coder=BeatCoderConfig(latent=LATENT, hidden=(16,), wide=8, width=BEAT),
    text_width=2,
    text_tokens=1,
    condition_width=4,
    section_width=SUMMARY,
    section_hidden=16,
    max_sections=8,
)


def draw_pieces(coder, seed, count):
    """Pieces of four kinds of section, each with its own eight beats; kinds take turns, from any of them."""
    rng, fixed = np.random.default_rng(seed), np.random.default_rng(12)
    motifs = fixed.normal(size=(4, LENGTH, 12, LATENT))
    facts_of_kind = 1.5 * fixed.normal(size=(4, FACTS))
    beat = np.broadcast_to(np.arange(N), (count, N))
    section, position = beat // LENGTH, beat % LENGTH
    kind = (rng.integers(0, 4, (count, 1)) + section) % 4
    z = np.float32(motifs[kind, position] + 0.1 * rng.normal(size=(count, N, 12, LATENT)))
    facts = facts_of_kind[kind] + 0.3 * rng.normal(size=(count, SECTIONS, FACTS)).repeat(LENGTH, 1)
    plan = Plan(
        section=section,
        position=np.float32(position),
        length=np.full((count, N), np.float32(LENGTH)),
        label=kind,
        facts=np.float32(facts),
        phase=np.float32(beat % 4 * 12),
        bar=np.full((count, N), np.float32(48)),
        passed=np.float32(beat),
        mask=np.ones((count, N), bool),
        n_sections=np.full(count, SECTIONS),
        lag=np.full(count, 4),
    )
    beats = np.asarray(jax.jit(partial(BeatCoder(CONFIG.coder).apply, method="encode"))({"params": coder}, z))
    before = np.pad(beats, ((0, 0), (1, 0), (0, 0)))[:, :5]
    wishes = {f"wish_{name}": value for name, value in unknown(count, 2, 1)._asdict().items()}
    given = {"beats": beats, "tick_z": z[:, :4], "tick_beats": before}
    return jax.tree.map(np.asarray, {**plan._asdict(), **wishes, **given})


def take(batch, rows):
    return {name: values[rows] for name, values in batch.items()}


def targets(objective, params, batch, rng):
    """What each level is asked for, with the noise that the objective adds."""
    plan = Plan(*(batch[name] for name in Plan._fields))
    summarise = jax.jit(partial(objective.model.apply, n_sections=SECTIONS, method="summarise"))
    summaries = summarise({"params": objective.whole(params)}, batch["beats"], plan)
    clean = {"section": summaries, "beat": batch["beats"], "tick": batch["tick_z"]}
    noise = {
        "section": CONFIG.section_noise,
        "beat": CONFIG.beat.mixture.noise,
        "tick": CONFIG.tick.mixture.noise,
    }
    noisy = {name: x + noise[name] * rng.normal(size=x.shape) for name, x in clean.items()}
    noisy["section"] = np.concatenate([noisy["section"], plan.facts[:, ::LENGTH]], -1)
    return {name: x.reshape(-1, x.shape[-1]) for name, x in noisy.items()}


def gaussian_nll(known, judged):
    """Nats a vector of `judged` under one Gaussian, of full covariance, fitted to `known`."""
    centred, spread = judged - known.mean(0), np.cov(known.T)
    distance = np.einsum("nd,de,ne->n", centred, np.linalg.inv(spread), centred)
    return 0.5 * (distance.mean() + np.linalg.slogdet(2 * np.pi * spread)[1])


def learn(seed):
    """Train; give each level's loss on held-out pieces before and after, and the Gaussian's."""
    start, rng, judge = jax.random.split(jax.random.key(seed), 3)
    coder = jax.jit(BeatCoder(CONFIG.coder).init)(start, jnp.zeros((1, 2, 12, LATENT)))["params"]
    known, judged = draw_pieces(coder, seed, 256), draw_pieces(coder, seed + 1000, 64)
    objective = PriorObjective(CONFIG, PriorLoss(), coder)
    optimiser = optax.chain(
        optax.clip_by_global_norm(1.0), optax.adam(optax.cosine_decay_schedule(RATE, STEPS))
    )

    def total(params, batch, rng):
        losses = objective.losses(objective.whole(params), batch, rng, jnp.array(0))[0]
        return sum(objective.weights[name] * loss for name, loss in losses.items()), losses

    @partial(jax.jit, compiler_options=QUICK)
    def step(params, memory, pieces, rng):
        slopes, losses = jax.grad(total, has_aux=True)(params, pieces, rng)
        change, memory = optimiser.update(slopes, memory, params)
        return optax.apply_updates(params, change), memory, losses

    def held_out():
        parts = np.arange(64).reshape(-1, PIECES)
        found = [step(params, memory, take(judged, part), judge)[2] for part in parts]
        return jax.tree.map(lambda *losses: float(np.mean(losses)), *found)

    params = jax.jit(objective.init, compiler_options=QUICK)(start, known)
    memory, order = optimiser.init(params), np.random.default_rng(seed)
    before = held_out()
    for key in jax.random.split(rng, STEPS):
        params, memory, _ = step(params, memory, take(known, order.integers(0, 256, PIECES)), key)
    after = held_out()
    fitted, asked = (targets(objective, params, pieces, order) for pieces in (known, judged))
    return {name: (before[name], after[name], gaussian_nll(fitted[name], asked[name])) for name in fitted}


@pytest.mark.slow
def test_every_level_learns():
    for name, (before, after, gaussian) in learn(0).items():
        assert after < before - 1, (name, before, after)
        assert after < gaussian - 1, (name, after, gaussian)
