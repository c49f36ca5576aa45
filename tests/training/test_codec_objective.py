import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mfm_jax.mesh import make_mesh
from mfm_jax.training.codec import CodecLoss, CodecObjective, disturb, roll_loss, widen
from mfm_jax.training.codec_measure import Tally, measure
from mfm_jax.training.loop import TrainConfig
from mfm_jax.training.state import abstract_state, begin_state
from tests.models.test_codec import TINY


def batch(size=2, ticks=24, frames=32):
    rng = np.random.default_rng(0)
    rolls = np.zeros((size, 2, ticks, 128, 3), np.float32)
    rolls[:, 0, 3:9, 60] = [0, 1, 0.5]
    rolls[:, 0, 3, 60, 0] = 1
    frame_roll = np.zeros((size, frames, 128, 3), np.float32)
    frame_roll[:, 8:20, 60] = [0, 1, 0.5]
    frame_roll[:, 8, 60, 0] = 1
    return {
        "latent": rng.normal(size=(size, frames, 256)).astype(np.float16),
        "frame_ticks": np.linspace(0, 20, frames, dtype=np.float32)[None].repeat(size, axis=0),
        "tick_mask": np.ones((size, ticks), bool),
        "rolls": rolls,
        "categories": np.array([[1, 0]] * size, np.int32),
        "percussion": np.zeros((size, 2), bool),
        "instrument_mask": np.array([[True, False]] * size),
        "frame_roll": frame_roll,
        "query_category": np.full(size, -1, np.int32),
        "query_percussion": np.zeros(size, bool),
        "clean": np.array([True] * (size - 1) + [False]),
    }


def test_widened_onsets_are_triangles():
    onsets = jnp.zeros((1, 15, 1)).at[0, 7].set(1.0)
    np.testing.assert_allclose(
        widen(onsets, 5)[0, 2:13, 0], [0, 0.2, 0.4, 0.6, 0.8, 1, 0.8, 0.6, 0.4, 0.2, 0], atol=1e-6
    )


def test_roll_loss_falls_for_right_answers_and_skips_what_is_masked():
    roll = jnp.asarray(batch()["frame_roll"])
    right = jnp.where(roll > 0, 8.0, -8.0).at[..., 2].set(0.0)
    mask = jnp.ones(roll.shape[:2])
    good, bad = roll_loss(right, roll, mask, 0), roll_loss(-right, roll, mask, 0)
    assert all(g < 1e-2 for g in good)
    assert bad.onset > 5
    assert bad.active > 5
    spoilt = right.at[:, 20:].set(50.0)
    np.testing.assert_allclose(roll_loss(spoilt, roll, mask.at[:, 20:].set(0), 0).onset, good.onset, rtol=0.5)


def test_disturbing_keeps_loud_bands_and_fills_silence():
    settings = CodecLoss(gain=0.0, tilt=0.0, hiss=0.0, floor=(-1.0, -1.0))
    latent = jnp.zeros((1, 4, 256)).at[:, :, 100].set(3.0).at[:, :, 50].set(-9.0)
    heard = disturb(latent, jax.random.key(0), settings)
    assert jnp.abs(heard[..., 100] - 3).max() < 0.01
    assert heard[..., 50].min() > -4


@pytest.mark.parametrize("stage", ["score", "joint", pytest.param("audio", marks=pytest.mark.slow), "sound"])
def test_names_agree_and_only_the_stage_s_parts_learn(stage):
    objective = CodecObjective(TINY, CodecLoss(stage=stage))
    data = jax.tree.map(jnp.asarray, batch())
    params = objective.init(jax.random.key(0), data)

    def total(params):
        losses, _ = objective.losses(params, data, jax.random.key(1), jnp.zeros((), jnp.int32))
        assert losses.keys() == objective.weights.keys()
        return sum(losses.values())

    value, grads = jax.jit(jax.value_and_grad(total))(params)
    assert np.isfinite(value)
    moved = {part for part, tree in grads.items() if any(jnp.abs(g).max() > 0 for g in jax.tree.leaves(tree))}
    wanted = {part for part, tree in objective.trainable(params).items() if all(jax.tree.leaves(tree))}
    assert moved == wanted
    assert all(jnp.isfinite(g).all() for g in jax.tree.leaves(grads))


def test_initial_parts_are_taken_over_and_others_drawn():
    data, recipe, mesh = batch(), TrainConfig(), make_mesh()

    def begun(initial):
        objective = CodecObjective(TINY, CodecLoss(), initial)
        like = abstract_state(objective, data, recipe, mesh)
        return begin_state(objective, jax.random.key(5), data, recipe, mesh, like).params

    params = begun(None)
    part = {"transcriber": jax.tree.map(lambda leaf: leaf + 1, params["transcriber"])}
    mixed = begun(part)
    assert mixed.keys() == params.keys()
    for name, tree in mixed.items():
        wanted = part.get(name, params[name])
        jax.tree.map(np.testing.assert_array_equal, tree, wanted)
    wrong = {"transcriber": {**params["transcriber"], "key_out": {"kernel": jnp.zeros((1, 1))}}}
    with pytest.raises(ValueError, match="leave the part out"):
        begun(wrong)


def test_measure_gives_every_figure():
    objective = CodecObjective(TINY, CodecLoss())
    params = objective.init(jax.random.key(0), jax.tree.map(jnp.asarray, batch()))
    figures = measure(objective.model, params, [batch()])
    names = {f"{n}_f1" for n in ("transcribe", "z_mixture", "z_each", "heard", "resynthesised")}
    assert figures.keys() == names | {"frames_l1", "frames_trivial_l1"}
    assert all(np.isfinite(v) for v in figures.values())


def test_tally_matches_each_note_once():
    tally = Tally()
    true = np.array([[0.0, 1, 60, 90], [10.0, 12, 60, 90], [5.0, 6, 62, 90]])
    found = np.array([[0.5, 1, 60, 90], [0.9, 1, 60, 90], [30.0, 31, 62, 90]])
    tally.add(true, found, 1.0)
    assert (tally.both, tally.true, tally.found) == (1, 3, 3)
    assert tally.f1 == pytest.approx(1 / 3)
