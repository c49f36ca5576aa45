import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from mfm_jax.checkpoint import flatten, load_weights, save_weights, unflatten, weights_hash

PARAMS = {
    "encoder": {
        "kernel": np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4),
        "bias": np.zeros(4, np.float32),
    },
    "large": np.array([1e9], np.float32),
    "count": np.array(3, np.int32),
}


@pytest.mark.parametrize("half", [False, True])
def test_weights_come_back_with_their_config(tmp_path, half):
    path = tmp_path / "deep" / "w.safetensors"
    save_weights(path, PARAMS, {"width": 4}, {"score": 0.5}, half=half)
    params, config, meta = load_weights(path)
    assert config == {"width": 4}
    assert meta == {"score": 0.5}
    assert jax.tree.structure(params) == jax.tree.structure(PARAMS)
    for old, new in zip(jax.tree.leaves(PARAMS), jax.tree.leaves(params), strict=True):
        assert new.dtype == old.dtype
        np.testing.assert_allclose(new, old, rtol=1e-3 if half else 0, atol=1e-3 if half else 0)
    assert [p.name for p in path.parent.iterdir()] == ["w.safetensors"]
    assert len(weights_hash(path)) == 16


def test_weights_may_be_read_by_whoever_may_read_other_files(tmp_path):
    save_weights(tmp_path / "w.safetensors", PARAMS, {})
    (tmp_path / "plain").touch()
    assert (tmp_path / "w.safetensors").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_device_arrays_can_be_saved(tmp_path):
    save_weights(tmp_path / "w", {"a": jnp.ones(3)}, {})
    np.testing.assert_array_equal(load_weights(tmp_path / "w").params["a"], np.ones(3))


def test_flatten_and_back():
    flat = flatten(PARAMS)
    assert list(flat) == ["count", "encoder/bias", "encoder/kernel", "large"]
    assert unflatten(flat).keys() == PARAMS.keys()


def test_files_that_are_not_weights_end_in_one_line(tmp_path):
    with pytest.raises(ValueError, match="no such weights"):
        load_weights(tmp_path / "none.safetensors")
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"not safetensors")
    with pytest.raises(ValueError, match="not a readable"):
        load_weights(broken)
    other = tmp_path / "other.safetensors"
    save_file({"x": np.zeros(3)}, other)
    with pytest.raises(ValueError, match="not weights of this package"):
        load_weights(other)
