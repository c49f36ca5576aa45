"""Every workflow end to end on random weights: shapes, files, seeds, promises that need no quality."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mfm_jax import MusicModel, cli, load_vae
from mfm_jax.axes import HOP, SAMPLE_RATE, WINDOW_FRAMES
from mfm_jax.inference.decoding import KEPT, stream
from mfm_jax.inference.score import decode_ticks, encode_score
from mfm_jax.inference.synthesis import latents
from mfm_jax.music.audio import read_audio
from mfm_jax.music.instruments import instrument_of
from mfm_jax.music.midi import read_midi, write_midi
from mfm_jax.music.notes import Score, Track
from mfm_jax.music.tempo import TempoMap

SECONDS = 2.0


def tune(*pitches: int, bpm: float = 120.0) -> Score:
    """One note a beat."""
    notes = [(12.0 * i, 12.0 * i + 10, p, 80) for i, p in enumerate(pitches)]
    return Score((Track(instrument_of(0), np.array(notes, float)),), TempoMap.constant(bpm, (3, 4)))


@pytest.fixture(scope="module")
def wave() -> np.ndarray:
    time = np.arange(int(SECONDS * SAMPLE_RATE)) / SAMPLE_RATE
    return (0.2 * np.sin(2 * np.pi * 440 * time) * np.exp(-(time % 0.5) * 5)).astype(np.float32)


def command(*arguments: object) -> int:
    return cli.main([str(a) for a in arguments])


def test_generate_is_the_same_alone_and_among_others(model: MusicModel) -> None:
    prompts = ["a calm piano waltz, 120 bpm", "a sad march"]
    together = model.generate(prompts, seed=7, seconds=SECONDS)
    alone = model.generate(prompts[1:], seed=7, seconds=SECONDS)
    np.testing.assert_array_equal(together[1].audio, alone[0].audio)
    np.testing.assert_array_equal(together[1].z, alone[0].z)
    assert together[0].score.tempo == TempoMap.constant(120, (3, 4))
    for piece in together:
        assert piece.audio is not None
        assert len(piece.audio) == SECONDS * SAMPLE_RATE
        assert np.isfinite(piece.audio).all()
    assert not np.array_equal(together[0].z[:12], together[1].z[:12])


def test_a_repeated_prompt_gets_the_next_seed(model: MusicModel) -> None:
    first, second = model.generate(["a waltz", "a waltz"], seed=3, seconds=1)
    (again,) = model.generate(["a waltz"], seed=4, seconds=1)
    assert (first.facts["seed"], second.facts["seed"]) == (3, 4)
    assert not np.array_equal(first.z, second.z)
    np.testing.assert_array_equal(second.audio, again.audio)


def test_arguments_win_over_the_prompt(model: MusicModel) -> None:
    (piece,) = model.generate(
        ["a slow piano waltz, 60 bpm"],
        bars=2,
        tempo=150,
        metre="4/4",
        key="G minor",
        instruments="cello, drums",
    )
    assert piece.score.tempo == TempoMap.constant(150, (4, 4))
    assert piece.z is not None
    assert len(piece.z) == 2 * 48
    assert {track.instrument.name for track in piece.score.tracks} == {"cello", "drums"}
    assert piece.facts["controls"]["key"] == "G minor"


def test_generate_command_writes_everything_twice_the_same(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ["generate", "a calm waltz", "--seconds", 1, "--model", weights, "--out"]
    for out in ("a", "b"):
        assert command(*asked, tmp_path / out) == 0
    (folder,) = (tmp_path / "a").iterdir()
    names = {path.name for path in folder.iterdir()}
    assert names == {"audio.wav", "score.mid", "score.csv", "latents.npz", "picture.png", "params.json"}
    for path in folder.iterdir():
        assert path.read_bytes() == (tmp_path / "b" / folder.name / path.name).read_bytes(), path.name
    facts = json.loads((folder / "params.json").read_text())
    assert facts["prompt"] == "a calm waltz"
    assert facts["seed"] == 0
    assert set(facts["weights"]) == set(facts["config"]) == {"vae", "codec", "generator", "text"}
    assert len(read_audio(folder / "audio.wav")) == SAMPLE_RATE


def test_synthesise_and_transcribe_commands(weights: Path, tmp_path: Path) -> None:
    write_midi(tmp_path / "tune.mid", tune(60, 64, 67))
    out = tmp_path / "out"
    assert command("synthesise", tmp_path / "tune.mid", "--model", weights, "--out", out) == 0
    sound = read_audio(out / "tune.wav")
    assert len(sound) == pytest.approx((1.5 + 1.5) * SAMPLE_RATE, rel=0.05)
    stereo = np.stack([sound, sound], axis=1)[::2]
    soundfile.write(tmp_path / "tune.flac", stereo, SAMPLE_RATE // 2)
    assert command("transcribe", tmp_path / "tune.flac", "--model", weights, "--out", out) == 0
    written = read_midi(out / "tune.mid") if read_notes(out / "tune.csv") else Score(())
    assert written.n_notes == read_notes(out / "tune.csv")
    names = {path.name for path in out.iterdir()}
    assert names == {"tune.wav", "tune.mid", "tune.csv", "tune.png", "tune.json"}


def read_notes(path: Path) -> int:
    return len(path.read_text().splitlines()) - 1


def test_resynthesis_keeps_untouched_samples(model: MusicModel, wave: np.ndarray) -> None:
    base = model.synthesise([tune(*range(60, 76))])[0]
    before = model.resynthesise([base.audio])[0]
    heard = before.score
    assert heard.n_notes
    added = Track(instrument_of(40), np.array([(7.0 * 12, 7.5 * 12, 50.0, 90.0)]))  # at 3.5 s, 120 bpm
    changed = dataclasses.replace(heard, tracks=(*heard.tracks, added))
    after = model.resynthesise([base.audio], edited=[changed])[0]
    assert before.audio is not None
    assert after.audio is not None
    same = before.audio == after.audio
    edit = slice(int(3.2 * SAMPLE_RATE), int(4.8 * SAMPLE_RATE))
    assert same[: edit.start].all()
    assert same[edit.stop :].all()
    assert not same[edit].all()


def test_reconstruct_keeps_the_length(model: MusicModel, wave: np.ndarray) -> None:
    ((frames, music),) = model.reconstruct([wave])
    assert frames.audio is not None
    assert music.audio is not None
    assert len(frames.audio) == len(music.audio) == len(wave)


def test_explore(model: MusicModel, weights: Path, tmp_path: Path) -> None:
    write_midi(tmp_path / "a.mid", tune(60, 62, 64))
    write_midi(tmp_path / "b.mid", tune(72, 71, 69, bpm=60))
    out = tmp_path / "out"
    sources = tmp_path / "a.mid", tmp_path / "b.mid"
    assert command("explore", *sources, "--steps", 2, "--model", weights, "--out", out) == 0
    assert [path.name for path in sorted(out.iterdir())] == ["01-blend-0.00", "02-blend-1.00"]
    first = json.loads((out / "01-blend-0.00" / "params.json").read_text())
    assert first["workflow"] == "explore"
    varied = model.explore([out / "01-blend-0.00"], vary="tick", steps=2, seed=5)
    again = model.explore([out / "01-blend-0.00"], vary="tick", steps=1, seed=6)
    np.testing.assert_array_equal(varied[1].z, again[0].z)
    higher = model.explore([tune(60, 62)], direction="higher", steps=1)
    assert higher[0].z is not None


def test_load_vae(weights: Path, wave: np.ndarray) -> None:
    vae = load_vae(weights / "vae.safetensors")
    assert (vae.sample_rate, vae.hop, vae.latent_dim) == (44_100, 256, 256)
    mean, std = vae.encode(np.stack([wave, 0 * wave]))
    assert mean.shape == std.shape == (2, -(-len(wave) // HOP), 256)
    sound = vae.decode(mean)
    assert sound.shape == (2, mean.shape[1] * HOP)
    np.testing.assert_array_equal(vae.decode(mean[1:])[0], sound[1])


@pytest.mark.parametrize("frames", [1, KEPT, KEPT + 1, 2 * KEPT + 300])
def test_decoded_stream_has_a_hop_for_each_frame_however_cut(model: MusicModel, frames: int) -> None:
    vae = model.engine.vae
    z = np.random.default_rng(0).standard_normal((frames, 256)).astype(np.float32)
    import jax

    def decode(*cuts: int) -> np.ndarray:
        pieces = np.split(z, [c for c in cuts if c < frames])
        return np.concatenate(list(stream(vae.module, vae.params, pieces, z[0], jax.random.key(0))))

    whole = decode()
    assert len(whole) == frames * HOP
    np.testing.assert_array_equal(decode(1, 500, 1_500), whole)


def test_windows_of_frames_join_without_a_seam(model: MusicModel) -> None:
    """Frames past the edge of a window equal those of a window that starts elsewhere."""
    score = tune(*([60, 64, 67, 72] * 16))
    z = encode_score(model.engine, score, 12 * 64)
    hot = np.zeros(19, np.float32)
    frames = np.concatenate(list(latents(model.engine, z, score.tempo, hot, WINDOW_FRAMES + 500)))
    assert frames.shape == (WINDOW_FRAMES + 500, 256)
    moved = score.tempo.shifted(12.0)
    later = np.concatenate([np.repeat(z[:1], 12, 0), z])
    lag = round(float(score.tempo.tick_to_frame(12)))
    other = np.concatenate(list(latents(model.engine, later, moved, hot, WINDOW_FRAMES + 500)))
    a, b = frames[WINDOW_FRAMES - 200 : WINDOW_FRAMES + 200], other[WINDOW_FRAMES - 200 + lag :][:400]
    assert np.abs(a - b).mean() < 0.2 * a.std()


def test_long_scores_decode_alike_in_windows(model: MusicModel) -> None:
    z = np.random.default_rng(1).standard_normal((1_600, 64)).astype(np.float32)
    roll = decode_ticks(model.engine, z, 1, False)
    assert roll.shape == (1_600, 128, 3)
    np.testing.assert_allclose(decode_ticks(model.engine, z[:700], 1, False), roll[:700], atol=1e-5)


def test_lists_must_agree(model: MusicModel, wave: np.ndarray) -> None:
    with pytest.raises(ValueError, match="one for each"):
        model.resynthesise([wave, wave], edited=[tune(60)])
    with pytest.raises(ValueError, match="list"):
        model.generate("a waltz")
