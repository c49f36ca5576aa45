import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal

from mfm_jax.dsp.spectral import (
    frame,
    istft,
    log_magnitudes,
    magnitudes,
    multi_resolution_distance,
    stft,
)


def noise(samples, seed=0, batch=1):
    return np.random.default_rng(seed).standard_normal((batch, samples)).astype(np.float32) * 0.1


def test_frames_are_centred_on_their_hop():
    wave = noise(2_000)
    frames = np.asarray(frame(jnp.asarray(wave), 1_024))
    assert frames.shape == (1, 8, 1_024)
    np.testing.assert_array_equal(frames[0, 3], wave[0, 3 * 256 - 512 : 3 * 256 + 512])
    assert not frames[0, 0, :512].any()


def test_round_trip():
    wave = noise(8_192, batch=2)
    back = np.asarray(istft(stft(jnp.asarray(wave), 2_048)))
    np.testing.assert_allclose(back[:, :-1024], wave[:, :-1024], atol=2e-5)


def test_agrees_with_scipy():
    wave = noise(8_192)
    window = scipy.signal.get_window("hann", 512)
    _, _, wanted = scipy.signal.stft(wave[0], window=window, nperseg=512, noverlap=256, scaling="spectrum")
    ours = np.asarray(magnitudes(jnp.asarray(wave), 512))[0]
    np.testing.assert_allclose(ours[:30], 2 * np.abs(wanted.T[:30]), atol=1e-5)


@pytest.mark.parametrize("size", [512, 2_048])
def test_a_sinusoid_reads_its_amplitude(size):
    time = np.arange(16_384) / 44_100
    hz = 40 * 44_100 / size
    wave = (0.3 * np.sin(2 * np.pi * hz * time)).astype(np.float32)[None]
    found = np.asarray(magnitudes(jnp.asarray(wave), size))[0, 32]
    assert found.argmax() == 40
    assert found.max() == pytest.approx(0.3, rel=1e-3)


def test_distance_and_its_gradient_are_finite_in_silence():
    wave = jnp.asarray(noise(4_096))
    assert float(multi_resolution_distance(wave, wave)) == 0
    assert float(multi_resolution_distance(0.5 * wave, wave)) > 0.1
    gradient = jax.grad(multi_resolution_distance)(jnp.zeros((1, 4_096)), jnp.zeros((1, 4_096)))
    assert np.isfinite(gradient).all()


def test_log_magnitudes_have_a_floor():
    assert float(log_magnitudes(jnp.zeros((1, 1_024)), 512).min()) == pytest.approx(np.log(1e-5), rel=1e-3)
