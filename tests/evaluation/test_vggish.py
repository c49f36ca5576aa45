"""VGGish: the network against the published stack of torch layers, with random weights."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from mfm_jax.evaluation import vggish
from mfm_jax.evaluation.embedders import embedder


@pytest.mark.parity
@pytest.mark.slow
def test_the_network_equals_torch(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    nn = torch.nn

    class Published(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            layers, channels = [], 1
            for width in (64, "M", 128, "M", 256, 256, "M", 512, 512, "M"):
                if width == "M":
                    layers.append(nn.MaxPool2d(2, 2))
                else:
                    layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True)]
                    channels = width
            self.features = nn.Sequential(*layers)
            dense = [nn.Linear(512 * 4 * 6, 4096), nn.ReLU(True), nn.Linear(4096, 4096), nn.ReLU(True)]
            self.embeddings = nn.Sequential(*dense, nn.Linear(4096, 128))

        def forward(self, x: object) -> object:
            found = self.features(x)
            return self.embeddings(found.permute(0, 2, 3, 1).flatten(1))

    torch.manual_seed(0)
    published = Published().eval()
    mel = np.random.default_rng(0).normal(0, 1, (2, 96, 64)).astype(np.float32)
    with torch.no_grad():
        wanted = published(torch.tensor(mel)[:, None]).numpy()
    state = {name: value.numpy() for name, value in published.state_dict().items()}
    weights = {name: jnp.asarray(value) for name, value in state.items()}
    np.testing.assert_allclose(np.asarray(vggish.network(weights, jnp.asarray(mel))), wanted, atol=1e-5)
    path = tmp_path / "vggish.safetensors"
    save_file(state, path)
    frames = embedder("vggish", path)(np.zeros(3 * vggish.RATE, np.float32))
    assert frames.shape == (3, 128)


def test_the_front_end_hears_a_tone_in_its_band() -> None:
    t = np.arange(vggish.SPAN) / vggish.RATE
    mel = np.asarray(vggish.log_mel(jnp.sin(2 * np.pi * 1_000 * jnp.asarray(t))[None]))[0]
    assert mel.shape == (96, 64)
    span = 1127 * np.log1p(np.array([125.0, 1_000.0, 7_500.0]) / 700)
    band = (span[1] - span[0]) / (span[2] - span[0]) * 65 - 1
    assert abs(mel.mean(0).argmax() - band) < 1


def test_other_weights_are_refused(tmp_path: Path) -> None:
    save_file({"x": np.zeros(2, np.float32)}, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match="not VGGish"):
        embedder("vggish", tmp_path / "x.safetensors")
    (tmp_path / "vggish.pth").write_bytes(b"PK dear diary")
    with pytest.raises(ValueError, match="mfm convert tensors"):
        embedder("vggish", tmp_path / "vggish.pth")
    with pytest.raises(ValueError, match="--weights FILE"):
        embedder("vggish")
