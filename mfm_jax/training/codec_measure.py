"""Note F1 of everything that the codec reads, and the distance of what it synthesises."""

from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from mfm_jax.axes import ACTIVE, FRAME_RATE, N_PITCHES, ONSET, Params
from mfm_jax.layers.film import MIXTURE
from mfm_jax.models.codec import MidiAudioCodec
from mfm_jax.models.codec_audio import multi_hot
from mfm_jax.music.notes import ON, PITCH, Notes
from mfm_jax.music.roll import decode_roll, roll_to_notes

TOLERANCE = 0.05 * FRAME_RATE  # frames: 50 ms
FRAME_ONSET, FRAME_ACTIVE, SUPPRESSION = 0.42, 0.30, 5  # data.md's thresholds
TICK_ONSET, TICK_ACTIVE = 0.5, 0.5


class Tally:
    """Counts of notes: found, true, and both."""

    def __init__(self) -> None:
        """Start from nothing."""
        self.both = self.true = self.found = 0

    def add(self, true: Notes, found: Notes, tolerance: float) -> None:
        """Match notes of the same pitch whose onsets lie within a tolerance, earliest first."""
        self.true += len(true)
        self.found += len(found)
        for pitch in range(N_PITCHES):
            ours = np.sort(found[found[:, PITCH] == pitch, ON])
            theirs = np.sort(true[true[:, PITCH] == pitch, ON])
            i = j = 0
            while i < len(ours) and j < len(theirs):
                if abs(ours[i] - theirs[j]) <= tolerance:
                    self.both, i, j = self.both + 1, i + 1, j + 1
                elif ours[i] < theirs[j]:
                    i += 1
                else:
                    j += 1

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall; 0 where there are no notes."""
        return 2 * self.both / max(self.true + self.found, 1)


def measure(
    model: MidiAudioCodec,
    params: Params,
    batches: Iterable[dict[str, Any]],
    noise: float = 0.3,
    seed: int = 0,
) -> dict[str, float]:
    """Give onset F1 and distances over batches of `training.data.codec_batches`.

    Returns:
        transcribe: F1 within 50 ms of the asked instrument, from frames.
        z_mixture, z_each: F1 at the exact tick of rolls read from noisy z, all together and one by one.
        heard: F1 within a tick of the mixture read from `from_vae`.
        frames: mean distance of `to_vae` from the latent, and `frames_trivial` that of a constant.
        resynthesised: F1 within 50 ms of notes that `transcribe` finds in what `to_vae` makes of the score.
    """
    tallies = {name: Tally() for name in ("transcribe", "z_mixture", "z_each", "heard", "resynthesised")}
    distances: list[tuple[float, float]] = []
    rng = jax.random.key(seed)
    for number, batch in enumerate(batches):
        arrays = {name: jnp.asarray(value) for name, value in batch.items()}
        out = jax.device_get(_run(model, params, arrays, jax.random.fold_in(rng, number), noise))
        distances.append((float(out["distance"]), float(out["trivial"])))
        for b in range(len(batch["latent"])):
            played = _onsets(batch["frame_roll"][b])
            tallies["transcribe"].add(played, _frame_notes(out["transcribe"][b]), TOLERANCE)
            if batch["query_category"][b] == MIXTURE:
                tallies["resynthesised"].add(played, _frame_notes(out["resynthesised"][b]), TOLERANCE)
            ticks = int(batch["tick_mask"][b].sum())
            rolls = batch["rolls"][b, :, :ticks] * batch["instrument_mask"][b, :, None, None, None]
            written = _onsets(rolls.max(axis=0))
            tallies["z_mixture"].add(written, _tick_notes(out["z_mixture"][b, :ticks]), 0.01)
            tallies["heard"].add(written, _tick_notes(out["heard"][b, :ticks]), 1.01)
            for i in np.flatnonzero(batch["instrument_mask"][b]):
                tallies["z_each"].add(_onsets(rolls[i]), _tick_notes(out["z_each"][i][b, :ticks]), 0.01)
    frames, trivial = np.mean(distances, axis=0)
    figures = {f"{name}_f1": tally.f1 for name, tally in tallies.items()}
    return {**figures, "frames_l1": float(frames), "frames_trivial_l1": float(trivial)}


def _operations(
    model: MidiAudioCodec, params: Params, batch: dict[str, Any], rng: jax.Array, noise: float | jax.Array
) -> dict[str, Any]:
    """Run every operation on a batch -> probabilities and distances."""

    def apply(method: str, *args: Any) -> Any:
        return model.apply({"params": params}, *args, method=method)

    parts = batch["categories"], batch["percussion"], batch["instrument_mask"]
    latent = jnp.asarray(batch["latent"], jnp.float32)
    z = apply("encode_roll", jnp.asarray(batch["rolls"], jnp.float32), *parts)
    noisy = z + noise * jax.random.normal(rng, z.shape)
    anyone = jnp.full(len(z), MIXTURE), jnp.zeros(len(z), bool)
    heard = apply("listen", latent)
    asked = batch["query_category"], batch["query_percussion"]
    instruments = multi_hot(batch["categories"], batch["instrument_mask"])
    frames = apply("to_vae", z, batch["frame_ticks"], instruments)
    estimate = apply("gather", heard, batch["frame_ticks"], z.shape[1])
    rolls = {
        "transcribe": apply("answer", heard, *asked),
        "resynthesised": apply("transcribe", frames, *anyone),
        "z_mixture": apply("decode_roll", noisy, *anyone),
        "heard": apply("decode_roll", estimate, *anyone),
    }
    each = [apply("decode_roll", noisy, parts[0][:, i], parts[1][:, i]) for i in range(parts[0].shape[1])]
    return {
        **{name: jax.nn.sigmoid(logits) for name, logits in rolls.items()},
        "z_each": [jax.nn.sigmoid(logits) for logits in each],
        "frames": frames,
        "distance": jnp.abs(frames - latent).mean(),
        "trivial": jnp.abs(latent - latent.mean(axis=1, keepdims=True)).mean(),
    }


_run = jax.jit(_operations, static_argnums=0)


def panels(model: MidiAudioCodec, params: Params, batch: dict[str, Any]) -> list[Float[np.ndarray, "F _"]]:
    """Show the first example of a batch: frames true and made, then what sounds, what is heard in both."""
    arrays = {name: jnp.asarray(value) for name, value in batch.items()}
    out = jax.device_get(_run(model, params, arrays, jax.random.key(0), 0.0))
    rolls = batch["frame_roll"][0], out["transcribe"][0], out["resynthesised"][0]
    frames = batch["latent"][0].astype(np.float32), out["frames"][0]
    return [*frames, *(roll[..., ACTIVE] + roll[..., ONSET] for roll in rolls)]


def _onsets(roll: Float[np.ndarray, "T 128 3"]) -> Notes:
    """Read the notes that begin within a true roll; one already sounding at its start is not counted."""
    struck = np.asarray(roll, np.float32).copy()
    struck[..., ACTIVE] = struck[..., ONSET]
    return roll_to_notes(struck)


def _frame_notes(probabilities: Float[np.ndarray, "F 128 3"]) -> Notes:
    return decode_roll(probabilities, FRAME_ONSET, FRAME_ACTIVE, SUPPRESSION)


def _tick_notes(probabilities: Float[np.ndarray, "T 128 3"]) -> Notes:
    return decode_roll(probabilities, TICK_ONSET, TICK_ACTIVE)
