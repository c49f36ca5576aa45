"""What a batch job computes, as shapes: what can be compiled ahead for machines that are not there."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from mfm_jax.axes import LATENT, N_CATEGORIES, WINDOW_FRAMES, Params
from mfm_jax.models.codec import CodecConfig, MidiAudioCodec, everyone
from mfm_jax.models.conditions import Conditions, unknown
from mfm_jax.models.generator import GeneratorConfig
from mfm_jax.models.generator_sampling import Seeds, seeds_of, start, write
from mfm_jax.models.vae import VAE, VAEConfig

BEATS = 64  # written by one call: half a minute
TICKS = 768  # of a window of the codec

Batch = dict[str, Any]


class Call(NamedTuple):
    """One call of a batch job: a function of parameters and of a batch whose first axes are items."""

    name: str
    function: Callable[[Params, Batch], Any]
    batch: Batch


def generating(config: GeneratorConfig, batch: int) -> Call:
    """Read the prompts and write `BEATS` beats of every piece."""

    def function(params: Params, given: Batch) -> Array:
        conditions, seeds = Conditions(**given["conditions"]), Seeds(**given["seeds"])
        state = start(config, params, conditions, given["bar_ticks"], given["lag"], seeds)
        return write(config, params, conditions, state, seeds, n_beats=BEATS)[0].z

    wishes = jax.eval_shape(lambda: unknown(batch, config.text_width, config.text_tokens))
    keys = jax.eval_shape(lambda: seeds_of(list(range(batch))))
    given = {
        "conditions": wishes._asdict(),
        "seeds": keys._asdict(),
        "bar_ticks": jax.ShapeDtypeStruct((batch,), np.float32),
        "lag": jax.ShapeDtypeStruct((batch,), np.int32),
    }
    return Call("generate", function, given)


def decoding(config: CodecConfig, batch: int) -> Call:
    """Turn a window of z into a roll and into VAE frames."""
    codec = MidiAudioCodec(config)

    def function(params: Params, given: Batch) -> tuple[Any, Any]:
        z = given["z"]
        roll = codec.apply({"params": params}, z, *everyone(batch), method="decode_roll")
        told = (z, given["frame_ticks"], given["instruments"])
        return roll, codec.apply({"params": params}, *told, method="to_vae")

    shapes = {"z": (TICKS, LATENT), "frame_ticks": (WINDOW_FRAMES,), "instruments": (N_CATEGORIES,)}
    return Call("decode", function, _floats(shapes, batch))


def sounding(config: VAEConfig, batch: int) -> Call:
    """Turn a window of VAE frames into a wave."""

    def function(params: Params, given: Batch) -> Any:
        return VAE(config).apply({"params": params}, given["frames"], method="decode")

    return Call("sound", function, _floats({"frames": (WINDOW_FRAMES, config.latent_dim)}, batch))


def _floats(shapes: dict[str, tuple[int, ...]], batch: int) -> Batch:
    return {name: jax.ShapeDtypeStruct((batch, *sides), jnp.float32) for name, sides in shapes.items()}
