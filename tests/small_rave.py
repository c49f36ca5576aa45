"""RAVE models with random weights, small enough to compile in a second."""

import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mfm_jax.checkpoint import save_weights
from mfm_jax.config import to_dict
from mfm_jax.inference.rave import FrozenRave
from mfm_jax.models.rave import Rave
from mfm_jax.models.rave_config import (
    DecoderV1Config,
    DecoderV2Config,
    EncoderV1Config,
    EncoderV2Config,
    LatentConfig,
    MelConfig,
    NoiseConfig,
    RaveConfig,
)

SIZE = 3
RATIOS = (2, 2)
DILATIONS = ((1, 3), (1,))
SHAPE: dict[str, Any] = {"bands": 4, "taps": 64, "attenuation": 60.0, "latent": LatentConfig(size=SIZE)}
FIRST: dict[str, Any] = {
    "encoder": EncoderV1Config(ratios=RATIOS, capacity=4),
    "decoder": DecoderV1Config(
        ratios=RATIOS, capacity=4, dilations=((3, 1),), noise=NoiseConfig(ratios=RATIOS)
    ),
}
SECOND: dict[str, Any] = {
    "encoder": EncoderV2Config(ratios=RATIOS, capacity=4, dilations=DILATIONS),
    "decoder": DecoderV2Config(
        ratios=RATIOS, capacity=4, dilations=DILATIONS, noise=NoiseConfig(ratios=(2, 2, 2), hidden=4)
    ),
}
CONFIGS = {
    "causal v1, stereo": RaveConfig(causal=True, channels=2, **SHAPE, **FIRST),
    "causal v2": RaveConfig(causal=True, **SHAPE, **SECOND),
    "centred v2": RaveConfig(**SHAPE, **SECOND),
    "mel": RaveConfig(**SHAPE, **SECOND | {"source": MelConfig(window=16, hop=4, bands=8)}),
}


@functools.cache
def small_rave(kind: str) -> FrozenRave:
    """Give a model whose principal axes are not those of its latent."""
    config = CONFIGS[kind]
    module = Rave(config)
    wave = jax.ShapeDtypeStruct((1, config.channels, 64), jnp.float32)
    shapes = jax.eval_shape(module.init, jax.random.key(0), wave)["params"]
    rng = np.random.default_rng(2)
    params = jax.tree.map(lambda leaf: _values(rng, leaf.shape), shapes)
    axes = np.linalg.qr(rng.standard_normal((SIZE, SIZE)))[0].astype(np.float32)
    return FrozenRave(module, params | {"axes": axes, "center": rng.standard_normal(SIZE).astype(np.float32)})


def _values(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Kernels that keep the level of what passes; scales and the like about 1."""
    if len(shape) == 1:
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    return (rng.standard_normal(shape) / np.sqrt(np.prod(shape[:-1]))).astype(np.float32)


def save_small_rave(kind: str, folder: Path) -> Path:
    """Write one as `mfm convert rave` does."""
    model = small_rave(kind)
    save_weights(folder / "vae.safetensors", model.params, to_dict(model.config))
    return folder
