"""The three stages, as small as they go: an objective and a stream of batches each.

Each imports what it needs: processes that are killed and started again should start quickly.
"""

import numpy as np

from mfm_jax.training.pipeline import batches

STAGES = ("vae", "codec", "generator")
SIZE, RECORDS = 8, 24  # examples in a batch, and different ones


def stage(name):
    """Give an objective and an endless stream that knows its place."""
    return {"vae": vae, "codec": codec, "generator": generator}[name]()


def stream(make):
    """Batches of `make(index, rng)`, in an order of their own in every epoch."""
    from mfm_jax.training.data import ClipData

    return batches([(range(RECORDS), 1.0)], make, ClipData(batch=SIZE))


def vae():
    from mfm_jax.training.vae import VAELossConfig, VAEObjective
    from tests.training.test_vae_objective import SPECTRAL

    def make(index, rng):
        return {"audio": rng.integers(-9_000, 9_000, 256 * 8).astype(np.int16)}

    return VAEObjective(SPECTRAL, VAELossConfig()), stream(make)


def codec():
    from mfm_jax.training.codec import CodecLoss, CodecObjective
    from tests.models.test_codec import TINY
    from tests.training.test_codec_objective import batch

    example = {name: value[0] for name, value in batch().items()}

    def make(index, rng):
        return {**example, "rolls": np.roll(example["rolls"], int(rng.integers(-30, 30)), axis=2)}

    return CodecObjective(TINY, CodecLoss(stage="score")), stream(make)


def generator():
    import jax
    import jax.numpy as jnp

    from mfm_jax.models.summaries import BeatCoder
    from mfm_jax.training.generator import PriorLoss, PriorObjective
    from tests.training.test_generator_objective import CONFIG, LATENT, draw_pieces, take

    coder = jax.jit(BeatCoder(CONFIG.coder).init)(jax.random.key(0), jnp.zeros((1, 2, 12, LATENT)))["params"]
    known = draw_pieces(coder, 0, RECORDS)
    return PriorObjective(CONFIG, PriorLoss(), coder), stream(lambda index, rng: take(known, index))
