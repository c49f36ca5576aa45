"""Audio to notes: windows of frames, instruments asked for one by one, notes joined over the windows."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from mfm_jax.axes import FRAME_RATE, HOP
from mfm_jax.inference.engine import Engine
from mfm_jax.inference.windows import NoteStream, cut
from mfm_jax.music.instruments import Instrument, category_instrument
from mfm_jax.music.notes import Score, Track, notes_in_ticks
from mfm_jax.music.roll import decode_roll
from mfm_jax.music.tempo import TempoMap

MIXTURE = -1  # the codec's category for all instruments together
PIANO = 1


class Listening(NamedTuple):
    """How probabilities become notes; tuned on held-out pieces made as noisy as recordings."""

    onset: float = 0.42
    active: float = 0.30
    suppression: int = 5  # frames to each side of a peak


LISTENING = Listening()


class Heard(NamedTuple):
    """A transcription: the score, and how much audio there was."""

    score: Score
    samples: int


def transcribe(
    engine: Engine,
    blocks: Iterable[np.ndarray],
    instruments: Sequence[Instrument] = (),
    tempo: TempoMap | None = None,
    listening: Listening = LISTENING,
) -> Heard:
    """Transcribe mono audio [S] at 44.1 kHz that arrives in blocks; memory does not grow with its length.

    Args:
        engine: the weights.
        blocks: the audio.
        instruments: what plays; each is asked for by category. Without any, the mixture is written for piano.
        tempo: the grid of the score; 120 bpm unless given. Times of notes do not depend on it.
        listening: thresholds.
    """
    asked: dict[int, Instrument] = {i.category: i for i in reversed(instruments)}
    if not asked:
        asked = {MIXTURE: category_instrument(PIANO)}

    def decode(probabilities: np.ndarray) -> np.ndarray:
        return decode_roll(
            probabilities,
            onset_threshold=listening.onset,
            active_threshold=listening.active,
            suppression=listening.suppression,
            refine=True,
        )

    streams = {category: NoteStream(decode) for category in asked}
    found: dict[int, list[np.ndarray]] = {category: [] for category in asked}
    samples = 0
    for window in cut(blocks):
        heard = engine.listen(engine.encode(window.wave))
        for category, instrument in asked.items():
            probabilities = engine.answer(heard, category, instrument.percussion)
            found[category].append(streams[category].push(window.keep(probabilities)))
        samples = (window.start + window.frames) * HOP
    tempo = tempo or TempoMap()
    tracks = []
    for category, instrument in sorted(asked.items()):
        notes = np.concatenate([*found[category], streams[category].close()])
        notes[:, :2] /= FRAME_RATE
        tracks.append(Track(instrument, notes_in_ticks(notes, tempo)))
    return Heard(Score(tuple(tracks), tempo), samples)
