"""The VAE's decoder as a stream: frames come in pieces of any length, audio goes out, no seam is heard.

Windows overlap. The phases of a window start from those that the window before reached at the same frame, and
the noise of a frame depends on its number alone, so both windows draw the same sinusoids over the frames they
share; what Griffin-Lim still makes different is crossfaded.
"""

from collections.abc import Iterable, Iterator

import jax
import numpy as np
from jaxtyping import Array

from mfm_jax.axes import HOP, Frames, Params, Wave
from mfm_jax.dsp.phase import white_noise
from mfm_jax.inference.together import Run, alone
from mfm_jax.models.vae import VAE, DecoderState

LEAD = 56  # frames to each side that are decoded twice: the predictor's context, and Griffin-Lim settles
FADE = 8  # frames of crossfade
KEPT = 1_024  # new frames of each window
WINDOW = KEPT + FADE + 2 * LEAD


def stream(
    vae: VAE,
    params: Params,
    pieces: Iterable[np.ndarray],
    quiet: np.ndarray,
    key: Array,
    run: Run = alone,
) -> Iterator[np.ndarray]:
    """Decode latents [n, 256] that arrive in pieces -> mono blocks, one hop for each frame.

    Args:
        vae: the module.
        params: its parameters.
        pieces: latents in order.
        quiet: the latent of silence [256], heard before the first frame and after the last.
        key: of the random phases.
        run: calls a window's function, alone or in a batch with others.
    """
    feed = iter(pieces)
    held = np.broadcast_to(quiet, (LEAD, len(quiet)))
    state = vae.initial_state(1)
    hop = vae.config.hop
    rise = np.linspace(0, 1, FADE * hop, dtype=np.float32)
    tail: np.ndarray | None = None
    first, total = 0, 0  # frame that the next window gives first; frames that have come in
    ended = False
    while not ended or first < total:
        while not ended and len(held) < WINDOW:
            piece = next(feed, None)
            ended = piece is None
            if piece is not None:
                total += len(piece)
                held = np.concatenate([held, piece])
        if first >= total:
            return
        short = WINDOW - len(held[:WINDOW])
        window = np.concatenate([held[:WINDOW], np.broadcast_to(quiet, (short, len(quiet)))])
        number = np.int32(first)
        wave, state = run(_window, (vae,), params, window[None].astype(np.float32), state, key, number)
        sound = np.array(wave[0])
        if tail is not None:
            sound[: len(tail)] = tail * (1 - rise) + sound[: len(tail)] * rise
        tail = sound[KEPT * hop :]
        yield sound[: min(KEPT, total - first if ended else KEPT) * hop]
        held = held[KEPT:]
        first += KEPT


def _window(
    vae: VAE, params: Params, latent: Frames, state: DecoderState, key: Array, number: Array
) -> tuple[Wave, DecoderState]:
    """Decode one window: audio of its KEPT + FADE middle frames, and the state the next one starts from."""
    hop = vae.config.hop
    # Frames are counted from far below zero, as the first window starts before the first frame.
    samples = WINDOW * hop
    noise = white_noise(key, number + 2**16, -(-samples // HOP))[None, :samples]
    wave, states = vae.apply({"params": params}, latent, noise, state, method="decode_from")
    after = jax.tree.map(lambda values: values[:, KEPT - 1], states)
    return wave[:, LEAD * hop : (LEAD + KEPT + FADE) * hop], after
