"""Examples cut from records, in batches: audio for the VAE, latents with their rolls for the codec."""

import functools

import grain
import numpy as np

from mfm_jax.axes import FRAME_RATE, HOP, N_CATEGORIES, TICKS_PER_BEAT
from mfm_jax.config import config
from mfm_jax.music.instruments import DRUMS
from mfm_jax.music.notes import Notes, Score, notes_in_seconds
from mfm_jax.music.roll import frames_roll, ticks_roll
from mfm_jax.music.tempo import TempoMap
from mfm_jax.records import score_of
from mfm_jax.spans import Span, opened
from mfm_jax.training.pipeline import Example, Mix, Share, batches, sources_of

EVERYTHING = -1  # category that asks for all instruments together
SLOWEST, FASTEST = 50.0, 180.0  # bpm of the nominal grids that audio without a known tempo is read on


@config
class ClipData:
    """How training examples are cut from clips.

    Attributes:
        batch: examples in a batch, over all processes.
        frames: length of an example, in VAE frames.
        ticks: longest example in ticks; what is faster is put on a nominal grid that fits.
        instruments: categories given one by one; of more, the busiest are.
        nominal: share of examples on a nominal grid instead of the music's own beats.
        mixture: share of queries that ask for everything; half of the rest asks for a category that sounds.
        stray: share of queries that ask for any category, mostly one that is silent.
        seed: of the order and the crops.
        ahead: batches prepared while the step runs.
        threads: that prepare them.
    """

    batch: int = 8
    frames: int = 1024
    ticks: int = 192
    instruments: int = 4
    nominal: float = 0.3
    mixture: float = 0.45
    stray: float = 0.15
    seed: int = 0
    ahead: int = 2
    threads: int = 1


def audio_batches(
    clips: Mix, settings: ClipData, epochs: int | None = None, share: Share | None = None
) -> grain.IterDataset:
    """Give batches `{"audio": int16 [B, frames * HOP]}` of clips, cropped at random."""
    return batches(sources_of(clips), functools.partial(cut_audio, settings), settings, epochs, share)


def codec_batches(
    latents: Mix, settings: ClipData, epochs: int | None = None, share: Share | None = None
) -> grain.IterDataset:
    """Give batches for the codec, of 'latent' records: what `cut_codec` says, batch first."""
    return batches(sources_of(latents), functools.partial(cut_codec, settings), settings, epochs, share)


def cut_audio(settings: ClipData, blob: bytes | Span, rng: np.random.Generator) -> Example:
    """Cut audio at a frame drawn at random; what is short ends in silence."""
    audio = opened(blob)[0]["audio"]
    length = settings.frames * HOP
    start = HOP * int(rng.integers(0, max(len(audio) - length, 0) // HOP + 1))
    piece = audio[start : start + length]
    return {"audio": np.pad(piece, (0, length - len(piece)))}


def cut_codec(settings: ClipData, blob: bytes | Span, rng: np.random.Generator) -> Example:
    """Cut frames and draw the rolls of what sounds in them.

    Returns:
        latent float16 [F, D]; frame_ticks [F], the first in [0, 1); tick_mask [T];
        rolls [I, T, 128, 3] on ticks, categories [I], percussion [I], instrument_mask [I];
        frame_roll [F, 128, 3] of query_category (EVERYTHING or one) and query_percussion;
        clean, whether the clip is a target of synthesis (see training/clips.py).
    """
    arrays, facts = opened(blob)
    score = score_of({name: a for name, a in arrays.items() if name.startswith("track_")}, facts)
    latent = arrays["latent"]
    start = int(rng.integers(0, max(len(latent) - settings.frames, 0) + 1))
    latent = latent[start : start + settings.frames]
    latent = np.pad(latent, ((0, settings.frames - len(latent)), (0, 0)), mode="edge")

    begin, end = start / FRAME_RATE, (start + settings.frames) / FRAME_RATE
    tempo, first = _grid(score.tempo, begin, end, settings, rng)
    frame_ticks = tempo.frame_ticks(settings.frames, start).astype(np.float64) - first
    parts = _seconds_by_category(score, begin, end)
    busiest = sorted(parts, key=lambda category: -len(parts[category]))[: settings.instruments]
    rng.shuffle(busiest)
    shape = (settings.instruments, settings.ticks, 128, 3)
    example: Example = {
        "latent": latent,
        "frame_ticks": frame_ticks.astype(np.float32),
        "tick_mask": np.arange(settings.ticks) <= frame_ticks[-1],
        "rolls": np.zeros(shape, np.float32),
        "categories": np.zeros(settings.instruments, np.int32),
        "percussion": np.zeros(settings.instruments, bool),
        "instrument_mask": np.zeros(settings.instruments, bool),
        "clean": np.bool_(facts.get("clean", False)),
    }
    for slot, category in enumerate(busiest):
        notes = parts[category].copy()
        notes[:, :2] = tempo.second_to_tick(notes[:, :2])
        example["rolls"][slot] = ticks_roll(notes, settings.ticks, first)
        example["categories"][slot] = category
        example["percussion"][slot] = category == DRUMS
        example["instrument_mask"][slot] = True
    example["rolls"] *= example["tick_mask"][:, None, None]
    query = _query(busiest, settings, rng)
    wanted = list(parts.values()) if query == EVERYTHING else [parts[query]] if query in parts else []
    heard = np.concatenate(wanted) if wanted else np.zeros((0, 4))
    example["frame_roll"] = frames_roll(heard, settings.frames, start)
    example["query_category"] = np.int32(query)
    example["query_percussion"] = np.bool_(query == DRUMS)
    return example


def _grid(
    tempo: TempoMap, begin: float, end: float, settings: ClipData, rng: np.random.Generator
) -> tuple[TempoMap, int]:
    """Choose the beats an example is read on: the music's, or a nominal tempo with its own phase.

    Returns:
        The tempo map and the tick in which second `begin` lies.
    """
    own = np.floor(tempo.second_to_tick(begin)), tempo.second_to_tick(end)
    if rng.random() >= settings.nominal and own[1] - own[0] < settings.ticks - 1:
        return tempo, int(own[0])
    fastest = (settings.ticks - 2) / (end - begin) * 60 / TICKS_PER_BEAT
    nominal = TempoMap.constant(float(rng.uniform(min(SLOWEST, fastest), min(FASTEST, fastest))))
    return nominal, int(np.floor(nominal.second_to_tick(begin)))


def _seconds_by_category(score: Score, begin: float, end: float) -> dict[int, Notes]:
    """Give the notes that sound between two seconds, by category; times stay those of the clip."""
    parts = {}
    for category, notes in score.by_category().items():
        seconds = notes_in_seconds(notes, score.tempo)
        inside = seconds[(seconds[:, 1] > begin) & (seconds[:, 0] < end)]
        if len(inside):
            parts[category] = inside
    return parts


def _query(present: list[int], settings: ClipData, rng: np.random.Generator) -> int:
    """Draw what an example asks for: everything, a category that sounds, or any category."""
    place = rng.random()
    if place < settings.mixture or not present:
        return EVERYTHING
    if place < settings.mixture + settings.stray:
        return int(rng.integers(N_CATEGORIES))
    return int(rng.choice(present))
