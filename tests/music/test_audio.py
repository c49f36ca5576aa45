import numpy as np
import pytest
import soundfile

from mfm_jax.music.audio import audio_seconds, check_audio, read_audio, read_blocks, resample, write_audio

RATE = 44_100


def tone(seconds=0.5, rate=RATE, hertz=440.0, level=0.5):
    return (level * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


@pytest.mark.parametrize(("suffix", "error"), [("wav", 1e-4), ("flac", 1e-4), ("ogg", 0.05), ("mp3", 0.05)])
@pytest.mark.parametrize("rate", [16_000, RATE, 48_000])
def test_formats_and_rates_round_trip(tmp_path, suffix, error, rate):
    path = tmp_path / f"tone.{suffix}"
    write_audio(path, tone(rate=rate), rate)
    wave = read_audio(path)
    assert wave.dtype == np.float32
    assert wave.shape == pytest.approx((RATE // 2,), abs=2)
    inner = slice(2000, 20_000)
    assert np.abs(wave[inner] - tone()[inner]).max() < error + (0 if rate == RATE else 0.01)
    assert audio_seconds(path) == pytest.approx(0.5, abs=0.01)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_channels(tmp_path):
    path = tmp_path / "stereo.wav"
    left, right = tone(), tone(hertz=330)
    write_audio(path, np.stack([left, right]))
    np.testing.assert_allclose(read_audio(path), (left + right) / 2, atol=1e-4)
    both = read_audio(path, channels=2)
    assert both.shape == (2, len(left))
    np.testing.assert_allclose(both, [left, right], atol=1e-4)
    write_audio(path, left)
    np.testing.assert_array_equal(*read_audio(path, channels=2))


def test_same_samples_give_the_same_bytes_and_peaks_are_clipped(tmp_path):
    for name in ("a.wav", "b.wav"):
        write_audio(tmp_path / name, tone(level=1.5))
    assert (tmp_path / "a.wav").read_bytes() == (tmp_path / "b.wav").read_bytes()
    assert np.abs(read_audio(tmp_path / "a.wav")).max() == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("rate", [RATE, 22_050])
@pytest.mark.parametrize("size", [1000, 7777, 200_000])
def test_blocks_joined_are_the_whole(tmp_path, rate, size):
    path = tmp_path / "long.wav"
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (2, 3 * rate + 17)).astype(np.float32)
    write_audio(path, noise, rate)
    blocks = list(read_blocks(path, size))
    assert all(len(block) == size for block in blocks[:-1])
    assert 0 < len(blocks[-1]) <= size
    np.testing.assert_array_equal(np.concatenate(blocks), read_audio(path))


def test_resampling_in_pieces_is_resampling_at_once(tmp_path, monkeypatch):
    path = tmp_path / "noise.wav"
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 70_000).astype(np.float32)
    write_audio(path, noise, 48_000)
    whole = read_audio(path)
    np.testing.assert_allclose(whole, resample(read_audio(path, 48_000), 48_000, RATE), atol=1e-5)
    monkeypatch.setattr("mfm_jax.music.audio._BLOCK", 5000)
    np.testing.assert_allclose(read_audio(path), whole, atol=1e-6)


def test_resampling_keeps_the_tone_and_the_shape():
    wave = resample(tone(rate=48_000), 48_000, RATE)
    np.testing.assert_allclose(wave[500:-500], tone()[500:-500], atol=1e-3)
    assert resample(np.stack([wave, wave]), RATE, 22_050).shape == (2, len(wave) // 2)
    assert resample(wave, RATE, RATE) is wave


def test_silence_is_audio(tmp_path):
    write_audio(tmp_path / "silence.wav", np.zeros(1000, np.float32))
    assert not read_audio(tmp_path / "silence.wav").any()


def save(path, wave, rate=RATE):
    soundfile.write(path, wave, rate, subtype="FLOAT")
    return path


@pytest.mark.parametrize(
    ("wave", "rate", "message"),
    [
        (np.full(100, np.nan), RATE, "NaN"),
        (np.full(100, np.inf), RATE, "NaN"),
        (np.full(100, 20_000.0), RATE, "scaled"),
        (np.zeros(0), RATE, "no samples"),
        (np.zeros((100, 8)), RATE, "8 channels"),
        (np.zeros(100), 1, "1 Hz"),
        (np.zeros(100), 1_000_000, "1000000 Hz"),
    ],
)
def test_bad_audio_ends_in_one_line_that_names_the_file(tmp_path, wave, rate, message):
    path = save(tmp_path / "bad.wav", wave, rate)
    for read in (read_audio, lambda path: list(read_blocks(path, 1000))):
        with pytest.raises(ValueError, match=message) as caught:
            read(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_bad_files(tmp_path):
    text = tmp_path / "text.wav"
    text.write_text("not audio")
    empty = tmp_path / "empty.wav"
    empty.touch()
    for path, message in [
        (text, "not an audio file"),
        (empty, "empty"),
        (tmp_path / "absent.wav", "no such file"),
        (tmp_path, "not a file"),
    ]:
        for read in (read_audio, audio_seconds, lambda path: list(read_blocks(path, 1000))):
            with pytest.raises(ValueError, match=message):
                read(path)


def test_a_truncated_file_is_read_as_far_as_it_goes_or_refused(tmp_path):
    for suffix in ("wav", "flac", "ogg", "mp3"):
        path = tmp_path / f"cut.{suffix}"
        write_audio(path, tone(2.0))
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        try:
            wave = read_audio(path)
        except ValueError as error:
            assert "\n" not in str(error)  # noqa: PT017
        else:
            assert len(wave) < 2 * RATE


def test_bad_writes_leave_nothing(tmp_path):
    cases = [
        (tmp_path / "x.aiff", tone(), RATE, "suffix"),
        (tmp_path / "x", tone(), RATE, "suffix"),
        (tmp_path / "absent" / "x.wav", tone(), RATE, "cannot be written"),
        (tmp_path / "x.wav", np.full(10, np.nan, np.float32), RATE, "NaN"),
        (tmp_path / "x.wav", np.zeros((3, 10), np.float32), RATE, "3 channels"),
        (tmp_path / "x.wav", np.zeros(0, np.float32), RATE, "no samples"),
        (tmp_path / "x.mp3", tone(), 100_000, "cannot be written"),
    ]
    for path, wave, rate, message in cases:
        with pytest.raises(ValueError, match=message):
            write_audio(path, wave, rate)
    assert list(tmp_path.iterdir()) == []


def test_check_audio_names_what_it_checks():
    with pytest.raises(ValueError, match="the input: 3 channels"):
        check_audio(np.zeros((3, 5), np.float32), RATE, "the input")
