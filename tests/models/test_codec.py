import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mfm_jax.layers.attention import TransformerConfig
from mfm_jax.models.codec import CodecConfig, MidiAudioCodec
from mfm_jax.models.codec_audio import FromFramesConfig, ToFramesConfig, hats, multi_hot, pooling, ticks_at
from mfm_jax.models.codec_score import ScoreConfig
from mfm_jax.models.codec_transcriber import LOWEST_PITCH, TranscriberConfig, harmonic_taps, slope

TINY = CodecConfig(
    score=ScoreConfig(
        width=16,
        instrument_width=8,
        dilations=(1,),
        decoder_dilations=(1,),
        context=16,
        transformer=TransformerConfig(layers=1, width=8, heads=2),
        embedding=4,
    ),
    transcriber=TranscriberConfig(key_width=2, summary_width=2, width=8, dilations=(1,), embedding=4),
    to_frames=ToFramesConfig(width=8, dilations=(1,), hidden=12, embedding=4, timbre=2),
    from_frames=FromFramesConfig(width=8, dilations=(1,)),
)
MODEL = MidiAudioCodec(TINY)


def example(batch=2, parts=2, ticks=26, frames=31):
    rng = np.random.default_rng(0)
    rolls = (rng.random((batch, parts, ticks, 128, 3)) < 0.02).astype(np.float32)
    categories = jnp.array([[1, 4]] * batch)[:, :parts]
    return {
        "rolls": jnp.asarray(rolls),
        "categories": categories,
        "percussion": jnp.zeros((batch, parts), bool),
        "mask": jnp.ones((batch, parts), bool),
        "frame_ticks": jnp.asarray(np.linspace(0, 5, frames, dtype=np.float32))[None].repeat(batch, axis=0),
    }


@pytest.fixture(scope="module")
def variables():
    fresh = MODEL.init(jax.random.key(0), **example())
    # FiLM starts as the identity: a trained codec does not.
    leaves, tree = jax.tree.flatten(fresh)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    return tree.unflatten(
        [v + 0.1 * jax.random.normal(k, v.shape) for k, v in zip(keys, leaves, strict=True)]
    )


def run(variables, method, *args, static=()):
    return jax.jit(lambda v, *a: MODEL.apply(v, *a, *static, method=method))(variables, *args)


def encode(variables, e):
    return run(variables, "encode_roll", e["rolls"], e["categories"], e["percussion"], e["mask"])


def test_shapes_of_every_operation_and_jit_changes_nothing(variables):
    e = example()
    z = encode(variables, e)
    assert z.shape == (2, 26, 64)
    one, no = jnp.array([1, -1]), jnp.zeros(2, bool)
    assert run(variables, "decode_roll", z, one, no).shape == (2, 26, 128, 3)
    instruments = multi_hot(e["categories"], e["mask"])
    latent = run(variables, "to_vae", z, e["frame_ticks"], instruments)
    assert latent.shape == (2, 31, 256)
    logits = run(variables, "transcribe", latent, one, no)
    assert logits.shape == (2, 31, 128, 3)  # an odd number of frames, on a stride of 2
    back = run(variables, "from_vae", latent, e["frame_ticks"], static=(26,))
    assert back.shape == z.shape
    plain = MODEL.apply(variables, latent, one, no, method="transcribe")
    np.testing.assert_allclose(logits, plain, rtol=1e-4, atol=1e-4)


def test_z_has_no_mean_and_unit_variance(variables):
    z = encode(variables, example())
    np.testing.assert_allclose(z.mean(axis=-1), 0, atol=1e-4)
    np.testing.assert_allclose(z.std(axis=-1), 1, atol=1e-2)


def test_order_padding_and_masked_instruments_do_not_change_z(variables):
    e = example()
    z = encode(variables, e)
    turned = {k: v[:, ::-1] if k != "frame_ticks" else v for k, v in e.items()}
    np.testing.assert_allclose(encode(variables, turned), z, rtol=1e-3, atol=1e-4)
    longer = {**e, "rolls": jnp.pad(e["rolls"], ((0, 0), (0, 0), (0, 22), (0, 0), (0, 0)))}
    np.testing.assert_allclose(encode(variables, longer)[:, :26], z, rtol=1e-3, atol=1e-4)
    masked = {**e, "mask": jnp.array([[True, False]] * 2)}
    other = {**masked, "rolls": e["rolls"].at[:, 1].set(0.0), "categories": jnp.array([[1, 9]] * 2)}
    np.testing.assert_allclose(encode(variables, masked), encode(variables, other), rtol=1e-4, atol=1e-5)


def test_the_roll_decoder_reads_no_later_tick(variables):
    z = encode(variables, example())
    one, no = jnp.array([1, 1]), jnp.zeros(2, bool)

    def at_tick(z):
        return MODEL.apply(variables, z, one, no, method="decode_roll")[0, 10].sum()

    seen = np.flatnonzero(np.abs(jax.jit(jax.grad(at_tick))(z)[0]).max(axis=1))
    assert seen.max() == 10
    assert seen.min() < 10


def test_the_instrument_asked_for_matters_everywhere(variables):
    e = example()
    z, no = encode(variables, e), jnp.zeros(2, bool)
    latent = jax.random.normal(jax.random.key(3), (2, 8, 256))
    for method, value in (("decode_roll", z), ("transcribe", latent)):
        answers = [np.asarray(run(variables, method, value, jnp.full(2, c), no)) for c in (-1, 1, 4)]
        drums = np.asarray(run(variables, method, value, jnp.full(2, 1), ~no))
        assert len({a.tobytes() for a in (*answers, drums)}) == 4
    sounds = [
        np.asarray(run(variables, "to_vae", z, e["frame_ticks"], jnp.eye(19)[jnp.full(2, c)])) for c in (1, 4)
    ]
    assert np.abs(sounds[0] - sounds[1]).max() > 1e-3


def test_batches_give_what_single_examples_give(variables):
    e = example()
    both = encode(variables, e)
    first = encode(variables, {k: v[:1] for k, v in e.items()})
    np.testing.assert_allclose(first[0], both[0], rtol=1e-4, atol=1e-5)


def test_key_bands_lie_on_harmonics():
    taps = harmonic_taps(9, 3)
    assert taps.shape == (210, 88, 33)
    middle_c = taps[:, 60 - LOWEST_PITCH]
    assert np.flatnonzero(middle_c[:, 1]).tolist() == [2 * (60 - 21)]
    assert np.flatnonzero(middle_c[:, 4]).tolist() == [
        2 * (72 - 21)
    ]  # the second harmonic is an octave above
    assert np.flatnonzero(middle_c[:, 28]).tolist() == [2 * (48 - 21)]  # the first subharmonic, below
    assert not taps[:, 0, 27:].any()  # the lowest key has none


def test_slope_of_a_ramp_and_of_a_step():
    ramp = jnp.arange(10.0).reshape(1, 10, 1)
    np.testing.assert_allclose(slope(ramp, 1)[0, 1:-1, 0], 2.0)
    np.testing.assert_allclose(slope(ramp, 3)[0, 3:-3, 0], 4.0)
    np.testing.assert_allclose(slope(jnp.ones((1, 5, 1)), 3), 0.0)


def test_frames_and_ticks_know_one_another():
    frame_ticks = jnp.array([[-0.5, 0.0, 0.9, 1.0, 1.5, 3.2, 9.0]])
    at = np.asarray(ticks_at(frame_ticks, 4)[0])
    assert at.argmax(axis=1).tolist() == [0, 0, 0, 1, 1, 3, 0]
    assert at.sum(axis=1).tolist() == [0, 1, 1, 1, 1, 1, 0]
    weights = np.asarray(pooling(frame_ticks, 4, 0.0)[0])
    np.testing.assert_allclose(weights.sum(axis=0), [1, 1, 0, 1])


def test_hats_share_one_between_neighbours():
    x = jnp.linspace(-2, 40, 50)[None]
    np.testing.assert_allclose(hats(x).sum(axis=-1), 1, rtol=1e-5)


def test_an_own_timbre_changes_the_sound_and_none_is_zero(variables):
    e = example()
    z, instruments = encode(variables, e), multi_hot(e["categories"], e["mask"])
    none = run(variables, "to_vae", z, e["frame_ticks"], instruments)
    zero = run(variables, "to_vae", z, e["frame_ticks"], instruments, jnp.zeros((2, 512)))
    own = run(variables, "to_vae", z, e["frame_ticks"], instruments, jnp.ones((2, 512)))
    np.testing.assert_array_equal(none, zero)
    assert np.abs(own - none).max() > 1e-3


def test_a_learned_grid_needs_no_structure():
    learned = TranscriberConfig(
        grid="learned", key_width=2, summary_width=2, width=8, dilations=(1,), embedding=4
    )
    model = MidiAudioCodec(CodecConfig(transcriber=learned))
    latent, one, no = jnp.ones((1, 4, 96)), jnp.array([1]), jnp.zeros(1, bool)
    variables = model.init(jax.random.key(0), latent, one, no, method="transcribe")
    assert variables["params"]["transcriber"]["spread"]["kernel"].shape == (96, 210)
    assert model.apply(variables, latent, one, no, method="transcribe").shape == (1, 4, 128, 3)
