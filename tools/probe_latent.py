"""Probe a VAE's latent before training on it: are notes plain in it, does it survive decoding and noise?

    python tools/probe_latent.py vae.safetensors --train DATA/train --test DATA/test_piano [--json FILE]

A linear probe (ridge regression from a frame and its neighbours to the piano roll) is fitted on some training
clips; its frame F1 (pitch sounds) and onset F1 (peak within 3 frames) are counted on the test clips, with the
latent as it is and with noise as a generator would add. Beside them stands the log-spectral distance of the
decoded magnitudes (spectral head) or of the decoded wave (pqmf head), in dB.
"""

import argparse
import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from scipy.ndimage import maximum_filter1d

from mfm_jax.axes import ACTIVE, HOP, ONSET
from mfm_jax.checkpoint import load_weights
from mfm_jax.config import build
from mfm_jax.dsp.spectral import log_magnitudes
from mfm_jax.models.vae import VAE, VAEConfig
from mfm_jax.models.vae_heads import SpectralHeadConfig
from mfm_jax.music.notes import notes_in_seconds
from mfm_jax.music.roll import frames_roll
from mfm_jax.records import read, score_of, shards

FRAMES = 2_048  # of each clip
CONTEXT = 2  # frames to each side that the probe sees
TOLERANCE = 3  # frames, 17 ms
NOISES = (0.0, 0.1, 0.3)
RIDGE = 1e-2
WINDOW = 2_048


def clips(folder: str, count: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Give waves [FRAMES * HOP] and rolls [FRAMES, 2, 128] (onset, active) of pitched notes."""
    for arrays, facts in islice(read(shards(folder)), count):
        wave = arrays["audio"][: FRAMES * HOP].astype(np.float32) / 32_768
        if len(wave) < FRAMES * HOP:
            continue
        score = score_of(arrays, facts)
        pitched = [track.notes for track in score.tracks if not track.instrument.is_drum]
        notes = np.concatenate(pitched) if pitched else np.zeros((0, 4))
        roll = frames_roll(notes_in_seconds(notes, score.tempo), FRAMES)
        yield (
            wave,
            np.stack([maximum_filter1d(roll[..., ONSET], 3, axis=0) > 0, roll[..., ACTIVE] > 0.5], axis=1),
        )


def context(latent: np.ndarray) -> np.ndarray:
    """Frames with their neighbours and a constant [F, (2 * CONTEXT + 1) * D + 1]."""
    padded = np.pad(latent, ((CONTEXT, CONTEXT), (0, 0)), mode="edge")
    parts = [padded[k : k + len(latent)] for k in range(2 * CONTEXT + 1)]
    return np.concatenate([*parts, np.ones((len(latent), 1), np.float32)], axis=1)


def best_f1(scores: np.ndarray, truth: np.ndarray, slack: int) -> float:
    """F1 at the best of 40 thresholds; a hit may be `slack` frames away."""
    near_truth = maximum_filter1d(truth, 2 * slack + 1, axis=0)
    best = 0.0
    for threshold in np.quantile(scores, 1 - np.geomspace(1e-4, 0.2, 40)):
        said = scores > threshold
        precision = (said & near_truth).sum() / max(said.sum(), 1)
        recall = (truth & maximum_filter1d(said, 2 * slack + 1, axis=0)).sum() / max(truth.sum(), 1)
        best = max(best, 2 * precision * recall / max(precision + recall, 1e-9))
    return float(best)


def main() -> None:
    """Fit the probe, count, print and write the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("weights", help="vae.safetensors")
    parser.add_argument("--train", required=True, help="folder of clips that the probe is fitted on")
    parser.add_argument("--test", required=True, help="folder of clips that it is tested on")
    parser.add_argument("--clips", type=int, default=60)
    parser.add_argument("--json", help="file for the figures")
    arguments = parser.parse_args()
    weights = load_weights(arguments.weights)
    config = build(VAEConfig, weights.config)
    vae, variables = VAE(config), {"params": weights.params}
    encode = jax.jit(lambda wave: vae.apply(variables, wave, method="encode")[0])
    spectral = isinstance(config.head, SpectralHeadConfig)

    @jax.jit
    def decoded(latent: jax.Array) -> jax.Array:
        if spectral:
            return vae.apply(variables, latent, method="magnitudes")
        return log_magnitudes(vae.apply(variables, latent, method="decode"), WINDOW)

    gram, cross = 0.0, 0.0
    for wave, roll in clips(arguments.train, arguments.clips):
        x = context(np.asarray(encode(wave[None])[0]))
        gram, cross = gram + x.T @ x, cross + x.T @ roll.reshape(len(roll), -1).astype(np.float32)
    size = np.shape(gram)[0]
    probe = np.linalg.solve(gram + RIDGE * np.trace(gram) / size * np.eye(size), cross)

    figures: dict[str, dict[str, float]] = {}
    rng = np.random.default_rng(0)
    held = list(clips(arguments.test, arguments.clips))
    for noise in NOISES:
        scores, distances = [], []
        for wave, _ in held:
            latent = np.asarray(encode(wave[None])[0])
            latent = latent + noise * rng.standard_normal(latent.shape).astype(np.float32)
            scores.append((context(latent) @ probe).reshape(-1, 2, 128))
            error = np.asarray(decoded(latent[None])[0] - log_magnitudes(jnp.asarray(wave[None]), WINDOW)[0])
            distances.append(float(np.sqrt((error**2).mean(axis=-1)).mean() * 20 / np.log(10)))
        said = np.concatenate(scores)
        truth = np.concatenate([roll for _, roll in held])
        figures[f"noise {noise}"] = {
            "onset_f1": best_f1(said[:, 0], truth[:, 0], TOLERANCE),
            "frame_f1": best_f1(said[:, 1], truth[:, 1], 0),
            "lsd_db": float(np.mean(distances)),
        }
    for name, row in figures.items():
        print(name, " ".join(f"{key} {value:.3f}" for key, value in row.items()))
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
