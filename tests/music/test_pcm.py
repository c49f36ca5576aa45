import io

import numpy as np
import pytest

from mfm_jax.music.pcm import PCM_FORMATS, pcm_bytes, read_pcm

RATE = 44_100


def read(data, form="s16le", channels=2, size=100):
    return list(read_pcm(io.BytesIO(data).read, form, channels, size, RATE))


def sound(samples=257, channels=2):
    return np.random.default_rng(0).uniform(-1, 1, (channels, samples)).astype(np.float32)


@pytest.mark.parametrize(("form", "error"), [("s16le", 2**-16), ("f32le", 0)])
def test_what_is_written_is_read_in_blocks(form, error):
    data = pcm_bytes(sound(), form)
    assert len(data) == 257 * 2 * PCM_FORMATS[form].itemsize
    blocks = read(data, form)
    assert [block.shape for block in blocks] == [(2, 100), (2, 100), (2, 57)]
    assert np.abs(np.concatenate(blocks, axis=1) - sound()).max() <= error


def test_channels_are_interleaved_and_little_endian():
    assert pcm_bytes(np.array([[0.5], [-1.0]], np.float32), "s16le") == b"\x00\x40\x00\x80"


def test_integers_clip_at_full_scale_and_floats_do_not():
    loud = np.array([[1.5, -1.5]], np.float32)
    np.testing.assert_array_equal(read(pcm_bytes(loud, "s16le"), channels=1)[0], [[1 - 2**-15, -1]])
    np.testing.assert_array_equal(read(pcm_bytes(loud, "f32le"), "f32le", 1)[0], loud)


@pytest.mark.parametrize(
    ("data", "form", "word"),
    [
        (b"", "s16le", "no samples"),
        (b"\0" * 403, "s16le", "3 bytes too many"),
        (pcm_bytes(np.array([[0.1, np.nan]], np.float32), "f32le"), "f32le", "NaN"),
        (pcm_bytes(np.full((1, 2), 3e4, np.float32), "f32le"), "f32le", "scaled"),
    ],
)
def test_bad_sound_is_refused(data, form, word):
    with pytest.raises(ValueError, match=f"standard input.*{word}"):
        read(data, form)
