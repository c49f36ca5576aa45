import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mfm_jax.inference.engine import Engine
from mfm_jax.inference.generation import DRAFTS, generate
from mfm_jax.inference.planning import Wish, understand
from mfm_jax.inference.together import Fault, Together
from mfm_jax.inference.workflows import transcribe

PARAMS = {"w": jnp.arange(12.0).reshape(3, 4)}
PROMPTS = ["a calm piano waltz", "a fast march in G major", "sad piano", "fast waltz", "a march"]


def scaled(power, params, x, by):
    return {"y": jnp.sum((x @ params["w"]) * by**power)}


def test_calls_of_many_threads_give_what_each_alone_would():
    together = Together(4)
    rng = np.random.default_rng(0)
    rows = [rng.normal(size=3).astype(np.float32) for _ in range(11)]

    def work(row):
        first = together.run(scaled, (2,), PARAMS, row, 2.0)["y"]
        time.sleep(0.001 * abs(float(row[0])))  # they come at different times
        return float(together.run(scaled, (1,), PARAMS, row, float(first))["y"])

    batched = together.map(work, rows)
    np.testing.assert_allclose(batched, [work(row) for row in rows], rtol=1e-5)


def test_a_bad_item_is_named_and_the_others_go_on():
    together = Together(2)
    done = []

    def work(number):
        if number == 2:
            raise ValueError("two\nis bad")
        return float(together.run(scaled, (1,), PARAMS, np.ones(3, np.float32), float(number))["y"])

    made = together.map(work, range(5), lambda: done.append(threading.get_ident()))
    assert made[2] == Fault("two is bad")
    assert made[4] == 4 * made[1]
    assert len(done) == 5


def test_what_is_no_fault_of_an_item_ends_the_run():
    def work(number):
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        Together(2).map(work, range(3))


def test_a_batch_must_divide_among_devices():
    with pytest.raises(ValueError, match="batch of 3: must be a multiple of the 2 devices"):
        Together(3, jax.local_devices()[:2])


@pytest.fixture(scope="module")
def pieces(weights):
    """Five prompts of different lengths: alone; in batches on two devices; in another order on the same."""
    plans = understand(PROMPTS, Wish(seconds=1.0))
    plans[1] = understand(PROMPTS[1:2], Wish(seconds=1.5))[0]
    order = [3, 1, 4, 0, 2]

    def made(together, numbers):
        engine = Engine(weights, together)
        engine.load("vae", "codec", "generator", "text", "quiet")

        def work(number):
            (piece,) = generate(engine, [plans[number]], [number], Wish(), rows=DRAFTS)
            return piece

        return [work(n) for n in numbers] if together is None else together.map(work, numbers)

    together = Together(4)
    moved = dict(zip(order, made(together, order)))
    return made(None, range(5)), made(together, range(5)), [moved[n] for n in range(5)]


@pytest.mark.slow
def test_generated_in_batches_is_what_is_generated_alone(pieces):
    alone, batched, moved = pieces
    for a, b, c in zip(alone, batched, moved, strict=True):
        assert np.array_equal(b.audio, c.audio)  # neighbours and order change no bit
        assert np.array_equal(b.z, c.z)
        assert a.audio.shape == b.audio.shape
        np.testing.assert_allclose(a.z, b.z, atol=1e-4)
        for one, other in zip(a.score.tracks, b.score.tracks, strict=True):
            assert np.array_equal(one.notes, other.notes)


@pytest.mark.slow
def test_recordings_in_batches(weights):
    rng = np.random.default_rng(0)
    waves = [rng.normal(0, 0.1, 20_000 + 7_000 * n).astype(np.float32) for n in range(3)]
    together = Together(2)
    engine = Engine(weights, together)
    engine.load("vae", "codec")
    plain = Engine(weights)
    for wave, batched in zip(waves, together.map(lambda wave: transcribe(engine, wave), waves)):
        alone = transcribe(plain, wave)
        assert alone.facts == batched.facts
        for one, other in zip(alone.score.tracks, batched.score.tracks, strict=True):
            np.testing.assert_allclose(one.notes, other.notes, atol=1e-3)
