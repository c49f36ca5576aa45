"""What is padding does not reach a loss: beats after a piece's end, words after a caption's, silent parts."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mfm_jax.models.summaries import BeatCoder
from mfm_jax.training.codec import CodecLoss, CodecObjective
from mfm_jax.training.generator import PriorLoss, PriorObjective
from tests.models.test_codec import TINY
from tests.training.test_codec_objective import batch as codec_batch
from tests.training.test_generator_objective import CONFIG, LATENT, LENGTH, QUICK, draw_pieces

END = 2 * LENGTH + 3  # beats of the first piece: it ends inside its third section
PADDED = ("beats", "position", "length", "facts", "phase", "bar", "passed")


@pytest.fixture(scope="module")
def prior():
    """A small prior with its parameters, two pieces of which the first is short, and the jitted losses."""
    start = jax.random.key(0)
    coder = jax.jit(BeatCoder(CONFIG.coder).init)(start, jnp.zeros((1, 2, 12, LATENT)))["params"]
    pieces = draw_pieces(coder, 0, 2)
    pieces["mask"] = pieces["mask"].copy()
    pieces["mask"][0, END:] = False
    pieces["wish_text_mask"] = np.array([[False]] * 2)
    objective = PriorObjective(CONFIG, PriorLoss(), coder)
    params = {**jax.jit(objective.init, compiler_options=QUICK)(start, pieces), "coder": coder}
    losses = jax.jit(partial(objective.losses, step=jnp.array(0)), compiler_options=QUICK)
    return pieces, lambda batch: losses(params, batch, rng=jax.random.key(1))[0]


def spoilt(values, rng):
    return values + (9 * rng.standard_normal(values.shape)).astype(values.dtype)


@pytest.mark.slow
def test_beats_after_the_end_do_not_reach_any_loss(prior):
    pieces, losses = prior
    rng, other = np.random.default_rng(0), {name: value.copy() for name, value in pieces.items()}
    for name in PADDED:
        other[name][0, END:] = spoilt(other[name][0, END:], rng)
    other["label"][0, END:] = 3
    for (name, old), new in zip(losses(pieces).items(), losses(other).values(), strict=True):
        np.testing.assert_allclose(new, old, rtol=1e-5, err_msg=name)
    other["beats"][0, END - 1] += 1  # the last real beat does
    assert abs(losses(other)["beat"] - losses(pieces)["beat"]) > 1e-3


@pytest.mark.slow
def test_words_that_are_not_there_do_not_reach_any_loss(prior):
    """The state that reads the caption is reset at its first word; without words nothing is left of it."""
    pieces, losses = prior
    other = {**pieces, "wish_text_tokens": spoilt(pieces["wish_text_tokens"], np.random.default_rng(0))}
    for (name, old), new in zip(losses(pieces).items(), losses(other).values(), strict=True):
        np.testing.assert_allclose(new, old, rtol=1e-6, err_msg=name)
    heard = {**other, "wish_text_mask": np.ones((2, 1), bool)}
    assert abs(losses(heard)["beat"] - losses(other)["beat"]) > 1e-4


@pytest.mark.slow
def test_parts_that_are_not_there_do_not_reach_the_codecs_losses():
    objective = CodecObjective(TINY, CodecLoss(stage="score"))
    data = codec_batch()
    assert not data["instrument_mask"][:, 1].any()
    params = jax.jit(objective.init, compiler_options=QUICK)(jax.random.key(0), data)
    losses = jax.jit(partial(objective.losses, step=jnp.array(0)), compiler_options=QUICK)
    other = {**data, "rolls": data["rolls"].copy()}
    other["rolls"][:, 1] = 1.0
    before = losses(params, data, rng=jax.random.key(1))[0]
    after = losses(params, other, rng=jax.random.key(1))[0]
    for name, old in before.items():
        np.testing.assert_allclose(after[name], old, rtol=1e-6, err_msg=name)
