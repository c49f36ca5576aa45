"""Clips -> 'latent' records: VAE frames in place of audio, encoded once by the frozen VAE."""

import functools
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Float, Int16

from mfm_jax.axes import HOP, WINDOW_FRAMES
from mfm_jax.building import Made, Runner, build
from mfm_jax.checkpoint import load_weights, weights_hash
from mfm_jax.models.vaes import refuse_misfit, vae_of
from mfm_jax.records import Arrays, Facts, pack, read, shards

MARGIN = 32  # frames on each side of a window that its encoding sees: 8,192 samples
FULL_SCALE = 32_768.0

Transform = Callable[[Arrays, Facts], tuple[Arrays, Facts]]


def encode_records(
    source: str | Path,
    out: str | Path,
    name: str,
    plan: Facts,
    transform: Transform,
    workers: int | Runner = 1,
    load: Callable[[], object] | None = None,
) -> Facts:
    """Pass every record of a folder through a function, shard by shard; goes on where it stopped.

    Args:
        source: folder of shards.
        out: folder of the results.
        name: first name of the results' shards.
        plan: what decides the results besides the source (a weights hash, say).
        transform: `(arrays, facts) -> (arrays, facts)`; a ValueError leaves the record out, by name. Must be
            picklable when there are several workers.
        workers: processes, or a runner; see `building.build`.
        load: called once by each worker before its first shard.
    """
    paths = shards(source)
    told = {**plan, "source": [Path(path).name for path in paths]}
    make = functools.partial(_transformed, paths, transform)
    return build(out, name, told, len(paths), make, workers, load)


def _transformed(paths: list[str], transform: Transform, index: int) -> Made:
    made = Made([], [])
    for arrays, facts in read([paths[index]]):
        try:
            made.blobs.append(pack(*transform(arrays, facts)))
        except ValueError as error:
            made.skipped.append((str(facts.get("id", index)), str(error)))
    return made


class LatentEncoder:
    """The frozen VAE's encoder, a window at a time: any length in constant memory and one compilation."""

    def __init__(self, path: str | Path) -> None:
        """Load `vae.safetensors`.

        Raises:
            ValueError: its frames are not those that the codec learns.
        """
        weights = load_weights(path)
        self.model = vae_of(weights.config)
        refuse_misfit(self.model.config, str(path))
        self._variables = {"params": weights.params}
        self._encode = jax.jit(functools.partial(self.model.apply, method="encode"))

    def __call__(self, audio: Int16[np.ndarray, " S"]) -> Float[np.ndarray, "F D"]:
        """Give the latent's mean, float16, F = ceil(S / HOP)."""
        n_frames = -(-len(audio) // HOP)
        n_windows = -(-n_frames // WINDOW_FRAMES)
        margin, window = MARGIN * HOP, WINDOW_FRAMES * HOP
        padded = np.zeros(n_windows * window + 2 * margin, np.float32)
        padded[margin : margin + len(audio)] = audio / FULL_SCALE
        parts = []
        for start in range(0, n_windows * window, window):
            mean, _ = self._encode(self._variables, padded[None, start : start + window + 2 * margin])
            parts.append(np.asarray(mean[0, MARGIN : MARGIN + WINDOW_FRAMES]).astype(np.float16))
        return np.concatenate(parts)[:n_frames]


def encode_latents(clips: str | Path, vae: str | Path, out: str | Path, workers: int | Runner = 1) -> Facts:
    """Write a 'latent' record for every clip: its arrays with `latent` float16 [F, D] in place of `audio`."""
    load = functools.partial(_encoder, str(vae))
    load()  # a bad file is refused before any work
    plan = {"stage": "latents", "vae": weights_hash(vae)}
    return encode_records(clips, out, "latents", plan, functools.partial(_encoded, str(vae)), workers, load)


@functools.cache
def _encoder(vae: str) -> LatentEncoder:
    return LatentEncoder(vae)


def _encoded(vae: str, arrays: Arrays, facts: Facts) -> tuple[Arrays, Facts]:
    kept = {name: array for name, array in arrays.items() if name != "audio"}
    return {**kept, "latent": _encoder(vae)(arrays["audio"])}, facts
