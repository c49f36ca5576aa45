"""`mfm evaluate fad` on small files, with an embedder of eight bands: nothing is compiled for long."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest
from small_audio import EMBEDDER, song

from mfm_jax import cli
from mfm_jax.evaluation import fad, records
from mfm_jax.evaluation.tf_checkpoint import tensors


def songs(folder: Path, seeds: range, names: str = "song{}.wav") -> Path:
    for seed in seeds:
        song(folder / names.format(seed), seed)
    return folder


def scores(report: records.Report) -> dict[str, float]:
    return {row["measure"]: row["value"] for row in report.rows}


def test_order_and_names_change_no_bit(tmp_path: Path) -> None:
    reference = songs(tmp_path / "ref", range(6))
    first = songs(tmp_path / "a", range(10, 16))
    second = tmp_path / "b"
    second.mkdir()
    for number, file in enumerate(sorted(first.iterdir(), reverse=True)):
        (second / f"{number}.wav").write_bytes(file.read_bytes())
    reports = [
        fad.evaluate(reference, folder, EMBEDDER, cache=tmp_path / "cache") for folder in (first, second)
    ]
    assert scores(reports[0]) == scores(reports[1])
    assert scores(reports[0])["FAD"] > 0
    assert [one["fad"] for one in reports[0].files] == [one["fad"] for one in reports[1].files]


def test_identical_folders_are_at_zero(tmp_path: Path) -> None:
    folder = songs(tmp_path / "ref", range(6))
    report = fad.evaluate(folder, folder, EMBEDDER, cache=tmp_path / "cache")
    assert set(scores(report).values()) == {0.0}
    assert any("same files" in warning for warning in report.warnings)


def test_the_cache_goes_by_content(tmp_path: Path) -> None:
    reference, generated = songs(tmp_path / "ref", range(6)), songs(tmp_path / "gen", range(10, 16))
    before = scores(fad.evaluate(reference, generated, EMBEDDER, cache=tmp_path / "cache"))
    song(generated / "song10.wav", 99, gain=0.05)
    after = scores(fad.evaluate(reference, generated, EMBEDDER, cache=tmp_path / "cache"))
    fresh = scores(fad.evaluate(reference, generated, EMBEDDER, cache=tmp_path / "other"))
    assert after == fresh
    assert after != before


def test_doubtful_audio_is_marked(tmp_path: Path) -> None:
    reference, generated = songs(tmp_path / "ref", range(6)), songs(tmp_path / "gen", range(10, 14))
    song(generated / "loud.wav", 1, gain=2.0)
    song(generated / "quiet.wav", 2, gain=1e-5)
    song(generated / "short.wav", 3, seconds=0.01)
    song(generated / "slow.wav", 4, rate=8_000)
    report = fad.evaluate(reference, generated, EMBEDDER, cache=tmp_path / "cache")
    told = " ".join(report.warnings)
    for words in ("clipped", "silent", "shorter than a frame", "mixed sample rates (8000, 16000 Hz)"):
        assert words in told
    few = fad.evaluate(reference / "song0.wav", generated / "slow.wav", EMBEDDER, cache=tmp_path / "cache")
    assert "TOO FEW" in " ".join(few.warnings)
    assert "no FAD-infinity" in " ".join(few.warnings)
    assert {row["measure"] for row in few.rows} == {"FAD", "KAD"}


def test_one_frame_and_unreadable_files_are_refused(tmp_path: Path) -> None:
    reference = songs(tmp_path / "ref", range(3))
    short = song(tmp_path / "short.wav", 3, seconds=0.01)
    with pytest.raises(ValueError, match="at least 2"):
        fad.evaluate(reference, short, EMBEDDER, cache=tmp_path / "cache")
    (reference / "broken.wav").write_bytes(b"dear diary")
    with pytest.raises(ValueError, match=r"broken\.wav"):
        fad.evaluate(reference, reference, EMBEDDER, cache=tmp_path / "cache")


def test_an_unknown_embedder_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(songs(tmp_path / "ref", range(1)))
    out = str(tmp_path / "r.json")
    assert cli.main(["evaluate", "fad", folder, folder, "--embedder", "ears", "--out", out]) == 2
    assert "'ears'" in capsys.readouterr().err
    assert cli.main(["evaluate", "fad", folder, folder, "--resamples", "-1", "--out", out]) == 2
    assert "negative" in capsys.readouterr().err


@pytest.mark.slow
def test_the_command_with_our_own_encoder(tmp_path: Path) -> None:
    reference, generated = songs(tmp_path / "ref", range(2)), songs(tmp_path / "gen", range(3, 5))
    out = tmp_path / "r.json"
    cache = str(tmp_path / "cache")
    assert (
        cli.main(["evaluate", "fad", str(reference), str(generated), "--cache", cache, "--out", str(out)])
        == 0
    )
    told = json.loads(out.read_text())
    assert told["embedding"]["d"] == 256
    assert len(told["embedding"]["weights"]) == 16
    assert told["n_frames"] == {"reference": 10, "generated": 10}
    assert [row["measure"] for row in told["rows"]] == ["FAD", "KAD"]


def varint(value: int) -> bytes:
    return bytes([value]) if value < 128 else bytes([value & 127 | 128]) + varint(value >> 7)


def test_tensorflow_checkpoints_are_read() -> None:
    """A table written here by hand from the format's description: two keys that share a beginning."""
    first, second = np.arange(6, dtype=np.float32).reshape(2, 3), np.array(7, np.float32)

    def entry(array: np.ndarray, offset: int) -> bytes:
        sides = b"".join(b"\x12" + varint(2) + b"\x08" + varint(side) for side in array.shape)
        place = b"\x20" + varint(offset) + b"\x28" + varint(array.nbytes)
        return b"\x08\x01\x12" + varint(len(sides)) + sides + place

    def record(shared: int, key: bytes, value: bytes) -> bytes:
        return varint(shared) + varint(len(key)) + varint(len(value)) + key + value

    ending = struct.pack("<II", 0, 1)
    data = record(0, b"", b"") + record(0, b"dense/bias", entry(second, 24))
    data += record(6, b"kernel", entry(first, 0)) + ending
    top = record(0, b"z", varint(0) + varint(len(data))) + ending
    handles = varint(0) + varint(0) + varint(len(data) + 5) + varint(len(top))
    index = (
        data + bytes(5) + top + bytes(5) + handles.ljust(40, b"\0") + struct.pack("<Q", 0xDB4775248B80FB57)
    )
    found = tensors(index, first.tobytes() + second.tobytes())
    np.testing.assert_array_equal(found["dense/kernel"], first)
    assert found["dense/bias"] == 7
    with pytest.raises(ValueError, match="do not hold a tensor"):
        tensors(index, b"")
    with pytest.raises(ValueError, match="not the index"):
        tensors(b"dear diary" * 9, b"")
