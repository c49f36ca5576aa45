import jax.numpy as jnp
import numpy as np
import pytest
from small_rave import SIZE, small_rave

from mfm_jax.inference import streaming
from mfm_jax.inference.controls import Controls, Knobs, controls_of, steer
from mfm_jax.inference.live import beginning, ending
from mfm_jax.inference.streaming import Meter, Stream, open_stream
from mfm_jax.models.rave_config import LatentConfig, RaveConfig
from mfm_jax.models.rave_latent import from_axes, to_axes

BLOCK = 128


def noise(samples: int, channels: int = 1) -> np.ndarray:
    return np.random.default_rng(0).uniform(-0.5, 0.5, (channels, samples)).astype(np.float32)


def cut(sound: np.ndarray, size: int) -> list[np.ndarray]:
    return [sound[:, i : i + size] for i in range(0, sound.shape[1], size)]


def played(stream: Stream, sound: np.ndarray, size: int = BLOCK, seed: int = 0) -> np.ndarray:
    return np.concatenate([*stream.run(cut(sound, size), seed), sound[:, :0]], axis=1)


def decibels(made: np.ndarray, wanted: np.ndarray) -> float:
    assert made.shape == wanted.shape
    assert np.std(wanted) > 1e-3
    return float(10 * np.log10(np.mean(wanted**2) / max(np.mean((made - wanted) ** 2), 1e-30)))


@pytest.mark.parametrize(
    "kind", ["causal v1, stereo", "causal v2", pytest.param("centred v2", marks=pytest.mark.slow)]
)
def test_streamed_is_offline(kind: str) -> None:
    vae = small_rave(kind)
    stream = Stream(vae, BLOCK)
    for samples, size in ((BLOCK * 6, BLOCK), (BLOCK * 5 + 37, 50)):
        sound = noise(samples, vae.channels)
        mean, _ = vae.encode(sound[None])
        whole = np.asarray(vae.decode(mean, noise=5)).reshape(vae.channels, -1)
        assert decibels(played(stream, sound, size, seed=5), whole[:, :samples]) >= 120


def test_sound_comes_as_late_as_told_and_the_end_is_flushed() -> None:
    vae = small_rave("causal v2")
    stream = Stream(vae, BLOCK)
    given, counts = 0, []

    def feed() -> object:
        nonlocal given
        for block in cut(noise(4 * BLOCK + 10), BLOCK):
            counts.append(given)
            yield block

    for sound in stream.run(feed()):
        given += sound.shape[1]
    assert 0 < stream.delay < BLOCK
    assert counts == [max(0, n * BLOCK - stream.delay) for n in range(5)]
    assert given == 4 * BLOCK + 10
    assert stream.latency == BLOCK + stream.delay + stream.bank
    for samples in (0, 3, stream.delay):
        assert played(stream, noise(samples)).shape == (1, samples)


def test_state_is_explicit() -> None:
    stream = Stream(small_rave("causal v2"), BLOCK)
    first, second = cut(noise(2 * BLOCK), BLOCK)
    _, state = stream.step(first, stream.start())
    once, _ = stream.step(second, state)
    again, _ = stream.step(second, state)
    other, _ = stream.step(second, stream.start())
    np.testing.assert_array_equal(once, again)
    assert np.abs(once - other).max() > 1e-3


def test_every_block_runs_the_code_that_was_compiled_before() -> None:
    stream = Stream(small_rave("causal v2"), BLOCK, Knobs(jitter=0.1))
    stream.prepare()
    compiled = streaming._step._cache_size()
    assert compiled > 0
    played(stream, noise(5 * BLOCK + 1))
    assert streaming._step._cache_size() == compiled


def test_noise_can_be_left_out_and_is_the_seeds() -> None:
    vae, sound = small_rave("causal v2"), noise(6 * BLOCK)
    mean, _ = vae.encode(sound)
    quiet = played(Stream(vae, BLOCK, noise=False), sound)
    assert decibels(quiet, np.asarray(vae.decode(mean, noise=np.zeros_like(sound)))) >= 120
    one, same, other = (played(Stream(vae, BLOCK), sound, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).max() > 1e-4
    assert np.abs(one - quiet).max() > 1e-4


def test_blocks_are_whole_frames() -> None:
    vae = small_rave("causal v2")
    step = 32  # a frame has 16 samples, a span of the noise branch 8 of 4 bands
    assert [Stream(vae, n).block for n in (1, step, step + 1)] == [step, step, 2 * step]
    assert [Stream(vae, n).rounded for n in (1, step)] == [True, False]
    assert Stream(vae).block == streaming.BLOCK
    with pytest.raises(ValueError, match="1 or more"):
        Stream(vae, 0)


def test_knobs_turn_their_own_principal_axis() -> None:
    vae, sound = small_rave("causal v2"), noise(6 * BLOCK)
    knobs = Knobs(scale=((None, 0.5), (1, 2.0)), bias=((2, 0.7),))
    center, axes = vae.params["center"], vae.params["axes"]
    turned = np.array(to_axes(vae.encode(sound)[0], center, axes))
    turned = turned * [0.5, 2.0, 0.5] + [0, 0, 0.7]
    wanted = vae.decode(from_axes(jnp.asarray(turned, jnp.float32), center, axes), noise=0)
    assert decibels(played(Stream(vae, BLOCK, knobs), sound), np.asarray(wanted)) >= 110
    assert decibels(played(Stream(vae, BLOCK), sound), np.asarray(wanted)) < 20


def test_smoothing_is_one_pole_from_the_first_frame_on() -> None:
    plain = {"center": jnp.zeros(1), "axes": jnp.eye(1)}
    controls = Controls(
        np.ones(1, np.float32), np.zeros(1, np.float32), np.float32(0)[...], np.float32(0.5)[...]
    )
    mean = jnp.asarray([9.0, 4.0, 0.0, 8.0])[None, :, None]
    zero = jnp.zeros_like(mean)
    index = jnp.arange(-1, 3)
    part = LatentConfig(size=1)
    made, last = steer((mean, zero), zero, controls, jnp.zeros((1, 1)), index, part, plain)
    np.testing.assert_allclose(made[0, 1:, 0], [4, 2, 5])
    after, _ = steer((mean, zero), zero, controls, last, index + 4, part, plain)
    np.testing.assert_allclose(after[0, :2, 0], [7, 5.5])


def test_smoothing_lasts_as_long_as_told() -> None:
    config = RaveConfig()
    controls = controls_of(Knobs(smooth=0.2), config)
    assert controls is not None
    assert float(controls.keep) ** (0.2 * config.sample_rate / config.hop) == pytest.approx(np.exp(-1))


def test_jitter_is_in_deviations() -> None:
    vae, sound = small_rave("causal v2"), noise(6 * BLOCK)
    mean, deviation = vae.encode(sound)
    normal = np.random.default_rng([3, 1])
    drawn = []
    for _ in range(6):
        drawn.append(normal.standard_normal((1, BLOCK // vae.hop, SIZE), np.float32))
    latent = mean + 0.5 * deviation * np.concatenate(drawn, axis=1)
    wanted = vae.decode(latent, noise=3)
    made = played(Stream(vae, BLOCK, Knobs(jitter=0.5)), sound, seed=3)
    assert decibels(made, np.asarray(wanted)) >= 110


def test_what_a_model_does_not_have_is_refused() -> None:
    vae = small_rave("causal v2")
    for knobs in (Knobs(scale=((SIZE, 1.0),)), Knobs(bias=((-1, 1.0),))):
        with pytest.raises(ValueError, match="this model has 0 to 2"):
            Stream(vae, BLOCK, knobs)
    unit = RaveConfig(latent=LatentConfig(kind="spherical", size=4))
    with pytest.raises(ValueError, match="0 to 2"):
        controls_of(Knobs(scale=((3, 1.0),)), unit)
    with pytest.raises(ValueError, match="no spread"):
        controls_of(Knobs(jitter=1.0), unit)
    with pytest.raises(ValueError, match="mel spectrogram"):
        Stream(small_rave("mel"))
    with pytest.raises(ValueError, match="cannot stream"):
        open_stream(None)


def test_the_account_of_time() -> None:
    meter = Meter()
    for took in (0.01, 0.03, 0.02):
        meter.add(took, 0.025)
    assert (meter.blocks, meter.missed, meter.worst) == (3, 1, 0.03)
    assert meter.factor == pytest.approx(0.8)
    assert "1 missed" in ending(meter)
    stream = Stream(small_rave("centred v2"), 100)
    line = beginning(stream)
    assert f"latency {stream.latency} samples" in line
    assert "rounded up" in line
    assert "centred" in line
