"""The text encoder against the published implementation, with random weights of published shapes."""

import json

import numpy as np
import pytest

from mfm_jax.convert.t5 import read_t5
from mfm_jax.models.text import TextEncoder

pytestmark = pytest.mark.parity
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

SMALL = {"d_model": 512, "num_layers": 8, "num_heads": 6, "d_kv": 64, "d_ff": 1024}
LARGE = {"d_model": 1024, "num_layers": 24, "num_heads": 16, "d_kv": 64, "d_ff": 2816}
LENGTHS = (1, 5, 150, 40)  # 150: past the distance from which all share a bucket


@pytest.mark.parametrize(
    "shape", [SMALL, pytest.param(LARGE, marks=pytest.mark.slow)], ids=["small", "large"]
)
def test_equals_transformers_on_a_ragged_batch(shape, tmp_path):
    import jax

    torch.manual_seed(0)
    config = transformers.T5Config(vocab_size=2000, feed_forward_proj="gated-gelu", **shape)
    theirs = transformers.T5EncoderModel(config).eval()
    theirs.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["num_layers"] == shape["num_layers"]
    ours, params = read_t5(tmp_path)

    rng = np.random.default_rng(0)
    mask = np.arange(max(LENGTHS))[None] < np.array(LENGTHS)[:, None]
    ids = (rng.integers(0, 2000, mask.shape) * mask).astype(np.int32)
    with torch.no_grad():
        wanted = theirs(torch.tensor(ids).long(), torch.tensor(mask).long()).last_hidden_state.numpy()
    tokens, _ = jax.jit(TextEncoder(ours).apply)(params, ids, mask)
    worst = np.abs(np.asarray(tokens) - wanted)[mask].max()
    print(
        f"{shape['num_layers']} layers, {shape['d_model']}-d: {worst:.1e} of {np.abs(wanted[mask]).max():.1f}"
    )
    assert worst <= 1e-4
