import numpy as np
import pytest

from mfm_jax.axes import HOP, WINDOW_FRAMES
from mfm_jax.inference.windows import KEPT_FRAMES, MARGIN_FRAMES, NoteStream, cut
from mfm_jax.music.roll import decode_roll


@pytest.mark.parametrize(
    "samples",
    [
        1,
        HOP,
        HOP + 1,
        (WINDOW_FRAMES - 1) * HOP,
        WINDOW_FRAMES * HOP + 1,
        KEPT_FRAMES * HOP,
        3 * KEPT_FRAMES * HOP + 7,
    ],
)
@pytest.mark.parametrize("block", [100_000, 10_000_000])
def test_windows_cover_every_sample_once(samples: int, block: int) -> None:
    wave = np.arange(1, samples + 1, dtype=np.float32)
    windows = list(cut(wave[i : i + block] for i in range(0, samples, block)))
    kept = [w.keep(w.wave.reshape(WINDOW_FRAMES, HOP)) for w in windows]
    joined = np.concatenate(kept).reshape(-1)
    assert len(joined) == -(-samples // HOP) * HOP
    np.testing.assert_array_equal(joined[:samples], wave)
    assert not joined[samples:].any()
    assert [w.start for w in windows] == [KEPT_FRAMES * i for i in range(len(windows))]


def test_neighbours_share_context() -> None:
    wave = np.random.default_rng(0).standard_normal(2 * KEPT_FRAMES * HOP).astype(np.float32)
    first, second = list(cut([wave]))[:2]
    overlap = 2 * MARGIN_FRAMES * HOP
    np.testing.assert_array_equal(first.wave[-overlap:], second.wave[:overlap])
    assert not first.wave[: MARGIN_FRAMES * HOP].any()


def probabilities(n_frames: int, seed: int) -> np.ndarray:
    """Smooth random activity with onsets, some notes longer than a window of 400 frames."""
    rng = np.random.default_rng(seed)
    roll = np.zeros((n_frames, 128, 3), np.float32)
    roll[..., 0] = rng.random((n_frames, 128)) * 0.4
    for _ in range(200):
        start, pitch = rng.integers(n_frames), rng.integers(30, 60)
        length = int(rng.choice([10, 100, 900]))
        roll[start, pitch, 0] = rng.uniform(0.5, 1)
        roll[start : start + length, pitch, 1] = 0.9
        roll[start : start + length, pitch, 2] = rng.uniform(0.1, 1)
    return roll


@pytest.mark.parametrize("piece", [37, 400, 5_000])
def test_note_stream_equals_whole_decoding(piece: int) -> None:
    def decode(roll: np.ndarray) -> np.ndarray:
        return decode_roll(roll, onset_threshold=0.45, active_threshold=0.3, suppression=5, refine=True)

    roll = probabilities(4_000, piece)
    stream = NoteStream(decode)
    parts = [stream.push(roll[i : i + piece]) for i in range(0, len(roll), piece)]
    found = np.concatenate([*parts, stream.close()])
    whole = decode(roll)
    found = found[np.lexsort((found[:, 2], found[:, 0]))]
    np.testing.assert_allclose(found, whole, atol=1e-9)
    assert len(stream.close()) == 0


def test_note_stream_holds_little_of_an_endless_note() -> None:
    def decode(roll: np.ndarray) -> np.ndarray:
        return decode_roll(roll, onset_threshold=0.5, active_threshold=0.3, suppression=5)

    stream = NoteStream(decode)
    stream.longest = 600
    roll = np.zeros((200, 128, 3), np.float32)
    roll[:, 60, 1] = 0.9
    first = roll.copy()
    first[50, 60, 0] = 1
    notes = [stream.push(first)]
    for _ in range(20):
        notes.append(stream.push(roll))
        assert stream._held is not None
        assert len(stream._held) <= 600 + 2 * 200
    notes.append(stream.close())
    assert len(np.concatenate(notes)) == 1
