"""The shipped weights do their jobs: floors far below the model card's figures, on sounds made here."""

import json
from pathlib import Path

import mir_eval
import numpy as np
import pytest

from mfm_jax import MusicModel, cli
from mfm_jax.axes import SAMPLE_RATE
from mfm_jax.music.instruments import CATEGORIES, instrument_of
from mfm_jax.music.midi import read_midi
from mfm_jax.music.notes import Score, Track, notes_in_seconds
from mfm_jax.music.tempo import TempoMap

pytestmark = pytest.mark.slow
PITCHES = (60, 64, 67, 72, 71, 67, 62, 65, 69, 74, 72, 65, 55, 59, 62, 67)


@pytest.fixture(scope="module")
def model() -> MusicModel:
    return MusicModel.from_pretrained()


def melody() -> Score:
    """Two notes a second, a bass note under every fourth; of another melody nearly nothing would match."""
    notes = [(12.0 * i, 12.0 * i + 11, float(p), 90.0) for i, p in enumerate(PITCHES)]
    notes += [(48.0 * i, 48.0 * i + 46, p - 24.0, 80.0) for i, p in enumerate(PITCHES[::4])]
    return Score((Track(instrument_of(0), np.array(sorted(notes))),), TempoMap.constant(120))


def plucked(score: Score) -> np.ndarray:
    """Play a score with decaying harmonics: a sound that no part of the model has seen."""
    notes = notes_in_seconds(score.tracks[0].notes, score.tempo)
    wave = np.zeros(int((score.seconds + 1) * SAMPLE_RATE))
    for onset, offset, pitch, velocity in notes:
        time = np.arange(int((offset - onset + 0.1) * SAMPLE_RATE)) / SAMPLE_RATE
        hz = 440 * 2 ** ((pitch - 69) / 12)
        tone = sum(np.sin(2 * np.pi * hz * k * time) * np.exp(-2 * k * time) / k**1.5 for k in range(1, 9))
        ends = np.minimum(1, np.minimum(time / 0.003, (time[-1] - time) / 0.05))
        start = int(onset * SAMPLE_RATE)
        wave[start : start + len(time)] += velocity / 127 * 0.2 * tone * ends
    return wave.astype(np.float32)


def onset_f1(truth: Score, found: Score) -> float:
    def parts(score: Score) -> tuple[np.ndarray, np.ndarray]:
        rows = np.concatenate([notes_in_seconds(t.notes, score.tempo) for t in score.tracks])
        return rows[:, :2], 440 * 2 ** ((rows[:, 2] - 69) / 12)

    score = mir_eval.transcription.precision_recall_f1_overlap(
        *parts(truth), *parts(found), offset_ratio=None
    )
    return float(score[2])


def test_transcribes_a_sound_it_has_not_seen(model) -> None:
    (heard,) = model.transcribe([plucked(melody())], instruments="piano")
    assert onset_f1(melody(), heard.score) > 0.4


def test_what_it_plays_can_be_transcribed(model) -> None:
    (played,) = model.synthesise([melody()])
    (heard,) = model.transcribe([played.audio], instruments="piano")
    assert onset_f1(melody(), heard.score) > 0.35


def test_generates_what_the_prompt_says(tmp_path: Path) -> None:
    prompt = "a calm piano waltz in G major, 90 bpm"
    for name in ("first", "second"):
        arguments = ["generate", prompt, "--seconds", "12", "--seed", "3", "--out", str(tmp_path / name)]
        assert cli.main(arguments) == 0
    first, second = (next((tmp_path / name).iterdir()) for name in ("first", "second"))
    for file in ("audio.wav", "score.mid", "params.json"):
        assert (first / file).read_bytes() == (second / file).read_bytes()
    score = read_midi(first / "score.mid")
    assert score.tempo.bpm == pytest.approx((90.0,), abs=0.01)
    assert score.tempo.metre_at(0) == (3, 4)
    assert {CATEGORIES[track.instrument.category] for track in score.tracks} == {"piano"}
    assert score.n_notes >= 12
    assert len({int(pitch) for track in score.tracks for pitch in track.notes[:, 2]}) >= 5
    facts = json.loads((first / "params.json").read_text())
    assert facts["seed"] == 3
    assert facts["prompt"] == prompt
