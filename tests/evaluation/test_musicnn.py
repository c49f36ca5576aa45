"""musicnn: the front end against librosa's, the network against the same layers in torch."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from mfm_jax.dsp.mel import mel_filters
from mfm_jax.evaluation import musicnn

Arrays = dict[str, np.ndarray]


def random_weights() -> Arrays:
    rng = np.random.default_rng(0)
    shapes = [(7, 38, 1, 204), (7, 67, 1, 204), (128, 1, 1, 51), (64, 1, 1, 51), (32, 1, 1, 51)]
    shapes += [(7, 561, 1, 64), (7, 64, 1, 64), (7, 64, 1, 64)]
    weights = {}

    def name(kind: str, number: int) -> str:
        return f"{kind}_{number}" if number else kind

    for number, shape in enumerate(shapes):
        weights[f"{name('conv2d', number)}/kernel"] = rng.normal(0, np.prod(shape[:3]) ** -0.5, shape)
        weights[f"{name('conv2d', number)}/bias"] = rng.normal(0, 0.1, shape[-1])
    for number, width in enumerate([1, 204, 204, 51, 51, 51, 64, 64, 64, 1506, 200]):
        for part in ("gamma", "beta", "moving_mean"):
            weights[f"{name('batch_normalization', number)}/{part}"] = rng.normal(0.5, 0.3, width)
        weights[f"{name('batch_normalization', number)}/moving_variance"] = rng.uniform(0.5, 2, width)
    weights["dense/kernel"], weights["dense/bias"] = rng.normal(0, 0.03, (1506, 200)), rng.normal(0, 0.1, 200)
    return {key: value.astype(np.float32) for key, value in weights.items()}


@pytest.mark.slow
@pytest.mark.parity
def test_the_network_equals_the_same_layers_in_torch() -> None:
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    weights = random_weights()
    mel = np.random.default_rng(1).uniform(0, 3, (2, 40, 96)).astype(np.float32)

    def tensor(kind: str, number: int, part: str) -> object:
        return torch.tensor(weights[f"{kind}_{number}/{part}" if number else f"{kind}/{part}"])

    def normal(x: object, number: int) -> object:
        mean, variance, gamma, beta = (
            tensor("batch_normalization", number, part)
            for part in ("moving_mean", "moving_variance", "gamma", "beta")
        )
        return functional.batch_norm(x, mean, variance, gamma, beta, eps=1e-3)

    def conv(x: object, number: int, before: int, after: int) -> object:
        kernel = tensor("conv2d", number, "kernel").permute(3, 2, 0, 1)
        padded = functional.pad(x, (0, 0, before, after))
        return torch.relu(functional.conv2d(padded, kernel, tensor("conv2d", number, "bias")))

    image = normal(torch.tensor(mel)[:, None], 0)
    pads = [(3, 3), (3, 3), (63, 64), (31, 32), (15, 16)]
    front = [normal(conv(image, k, *pads[k]), k + 1).amax(3) for k in range(5)]
    features = torch.cat(front, 1)  # [B, C, F]
    layers = [features]
    for number in range(5, 8):
        x = layers[-1].transpose(1, 2)[:, None]
        made = normal(conv(x, number, 3, 3), number + 1)[..., 0]
        layers.append(made if number == 5 else made + layers[-1])
    every = torch.cat(layers, 1)
    flat = normal(torch.stack([every.amax(2), every.mean(2)], 2).flatten(1), 9)
    dense = torch.relu(flat @ torch.tensor(weights["dense/kernel"]) + torch.tensor(weights["dense/bias"]))
    wanted = normal(dense, 10).numpy()
    found = musicnn.hidden({key: jnp.asarray(value) for key, value in weights.items()}, jnp.asarray(mel))
    np.testing.assert_allclose(np.asarray(found), wanted, atol=2e-4)


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore")
def test_mel_filters_equal_librosa() -> None:
    librosa = pytest.importorskip("librosa")
    slaney = librosa.filters.mel(sr=16_000, n_fft=512, n_mels=96)
    np.testing.assert_allclose(mel_filters(16_000, 512, 96, 0.0, 8_000.0).T, slaney, atol=1e-7)
    htk = librosa.filters.mel(sr=44_100, n_fft=1024, n_mels=64, fmin=50, fmax=14_000, htk=True, norm=None)
    np.testing.assert_allclose(mel_filters(44_100, 1024, 64, 50.0, 14_000.0, "htk", False).T, htk, atol=1e-5)


def test_fifty_tags_of_each_set() -> None:
    for tags in musicnn.TAGS.values():
        assert len(tags) == len(set(tags)) == 50


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x.whl").write_bytes(b"dear diary" * 99)
    with pytest.raises(ValueError, match="no musicnn weights"):
        musicnn.load(tmp_path / "x.whl", "MTT")
