import dataclasses

import numpy as np
import pytest

from mfm_jax.music.facts import key_scores, measure
from mfm_jax.music.instruments import DRUMS, instrument_of
from mfm_jax.music.notes import Score, Track
from mfm_jax.music.tempo import TempoMap
from mfm_jax.records import pack, write_shard
from mfm_jax.training.compositions import arrange, bar_places, beat_facts
from mfm_jax.training.pipeline import WHOLE, Share
from mfm_jax.training.stretches import (
    BatchConfig,
    coder_batches,
    load_stretches,
    no_text,
    prior_batches,
    stretch_of,
)

SETTINGS = BatchConfig(coder_batch=2, coder_beats=4, batch=3, beats=24, tick_batch=2, tick_beats=4)


def score(bars=12, metre=(3, 4)):
    beats = bars * 3
    melody = [[12.0 * n, 12.0 * n + 12, 60 + (n * 5) % 12, 80] for n in range(beats)]
    bass = [[36.0 * n, 36.0 * n + 30, 40, 70] for n in range(bars)]
    tracks = (Track(instrument_of(52), np.array(melody)), Track(instrument_of(0), np.array(bass)))
    return Score(tracks, TempoMap.constant(90, metre), "A song")


def record(split="train"):
    piece = score()
    n = 36
    phase, bar = bar_places(piece, n)
    z = np.random.default_rng(0).normal(size=(n, 12, 64)).astype(np.float16)
    measured = measure(piece, {}).to_json()
    facts = {
        "id": "a",
        "corpus": "c",
        "split": split,
        "start": 0,
        "total": n,
        "transposed": 0,
        "tonic": None,
        "instruments": [1, 15],
    }
    return {"z": z, "phase": phase, "bar": bar, **beat_facts(piece, piece.by_category(), n)}, {
        **facts, "measured": measured, "captions": ["a song"]
    }  # fmt: skip


def test_places_in_bars():
    phase, bar = bar_places(score(metre=(3, 4)), 5)
    assert phase.tolist() == [0, 12, 24, 0, 12]
    assert bar.tolist() == [36] * 5
    assert bar_places(score(metre=(3, 8)), 4)[0].tolist() == [0, 12, 6, 0]


def test_facts_of_beats():
    facts = beat_facts(score(), score().by_category(), 36)
    assert facts["onsets"][:4].tolist() == [2, 1, 1, 2]
    assert facts["tempo"][0] == 90
    assert facts["sounding"].sum() == 36 * 12 + 12 * 30
    assert (facts["voiced"] == 12).all()


def test_arrangements_keep_the_music():
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(30):
        made = arrange(score(), 256, rng)
        assert -5 <= made.transposed <= 6
        parts = made.score.by_category()
        seen |= set(parts)
        pitches = np.concatenate([notes[:, 2] for c, notes in parts.items() if c != DRUMS])
        assert 40 + made.transposed in pitches
        assert 15 not in seen or len(seen) > 1
    assert len(seen) > 5
    assert DRUMS in seen


def test_all_music_may_be_put_on_one_tonic():
    rng = np.random.default_rng(0)
    for tonic in (0, 7):
        made = arrange(score(), 256, rng, tonic).score
        pitched = [t.notes for t in made.tracks if not t.instrument.is_drum]
        assert int(np.argmax(key_scores(np.concatenate(pitched)))) % 12 == tonic


def test_long_pieces_are_cut_at_a_bar():
    made = arrange(score(bars=200), 60, np.random.default_rng(1))
    assert made.total == 600
    assert made.start % 3 == 0
    assert made.score.end <= 60 * 12


def test_stretch_is_cut_into_sections():
    stretch = stretch_of(*record())
    assert stretch.starts[0] == 0
    assert stretch.n_sections == len(stretch.starts)
    assert stretch.position[stretch.starts].tolist() == [0] * len(stretch.starts)
    assert np.allclose(stretch.facts[0, 0], 4 * np.log2(0.9))


def test_processes_together_make_what_one_makes():
    stretches = [stretch_of(*record())] * 3
    beats = list(np.random.default_rng(1).normal(size=(3, 36, 6)))
    text = no_text(stretches, 8, 3)
    settings = dataclasses.replace(SETTINGS, coder_batch=4, batch=4, tick_batch=4)
    for make in (
        lambda share: coder_batches(stretches, settings, 2, share),
        lambda share: prior_batches(stretches, beats, text, settings, 2, share),
    ):
        alone = make(WHOLE)
        next(alone)
        for count in (2, 4):
            together = [make(Share(index, count)) for index in range(count)]
            for part in together:
                part.set_state(alone.get_state())
            rows = [next(part) for part in together]
            for name, value in next(alone).items():
                assert np.array_equal(np.concatenate([row[name] for row in rows]), value), name


def test_batches_are_a_function_of_seed_and_step(tmp_path):
    for index, split in enumerate(("train", "valid")):
        write_shard(tmp_path / f"z-{index:05d}-of-00002.array_record", [pack(*record(split))])
    stretches = load_stretches(tmp_path, "train")
    assert len(stretches) == 1
    beats = [np.zeros((36, 6), np.float16)]
    text = no_text(stretches, 8, 3)
    stream = prior_batches(stretches, beats, text, SETTINGS, 0)
    first, place, second = next(stream), stream.get_state(), next(stream)
    again = prior_batches(stretches, beats, text, SETTINGS, 0)
    again.set_state(place)
    for name, value in next(again).items():
        assert np.array_equal(value, second[name]), name
    assert first["beats"].shape == (3, 24, 6)
    assert first["tick_z"].shape == (2, 4, 12, 64)
    assert first["wish_text_tokens"].shape == (3, 3, 8)
    assert (first["position"][:, 0] == 0).all()
    assert next(coder_batches(stretches, SETTINGS, 0))["z"].shape == (2, 4, 12, 64)
    with pytest.raises(ValueError, match="split 'test'"):
        load_stretches(tmp_path, "test")
