"""Public sets, served by a small server of the test's own."""

import functools
import hashlib
import http.server
import io
import json
import sys
import tarfile
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mfm_jax.evaluation.agreement import works
from mfm_jax.evaluation.note_files import read_notes
from mfm_jax.music.instruments import instrument_of
from mfm_jax.music.midi import write_midi
from mfm_jax.music.notes import Score

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))

import public_sets
from public_sets import Remote, fetch, make


def wave(seconds: float) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, 0.1 * np.sin(np.arange(int(16_000 * seconds)) / 8), 16_000, format="WAV")
    return file.getvalue()


@pytest.fixture
def server(tmp_path: Path):
    """A folder and the address that serves it."""
    folder = tmp_path / "served"
    folder.mkdir()
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{serving.server_port}"
        serving.shutdown()


def remote(folder: Path, address: str, name: str, content: bytes) -> Remote:
    (folder / name).write_bytes(content)
    return Remote(f"{address}/{name}", hashlib.md5(content).hexdigest())


def zipped(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def test_guitarset_becomes_pairs(server, tmp_path: Path) -> None:
    note = {"time": 1.0, "duration": 0.5, "value": 52.1, "confidence": None}
    late = {"time": 31.0, "duration": 0.5, "value": 60.0, "confidence": None}
    columns = {name: [value] for name, value in note.items()}
    strings = [{"namespace": "note_midi", "data": [note, late]}, {"namespace": "note_midi", "data": columns}]
    jams = json.dumps({"annotations": [*strings, {"namespace": "tempo", "data": []}]}).encode()
    names = [f"00_Rock{i}-90-C_comp" for i in range(3)]
    notes = remote(*server, "annotation.zip", zipped({f"{name}.jams": jams for name in names}))
    sounds = remote(*server, "audio_mono-mic.zip", zipped({f"{name}_mic.wav": wave(2) for name in names}))
    chosen = public_sets.SETS["guitarset"]._replace(remotes=(notes, sounds))
    out = tmp_path / "out"
    assert make(chosen, out, tmp_path / "cache", 2) == 2
    assert [work.name for work in works(out)] == [names[0], names[2]]
    (played,) = read_notes(out / f"{names[0]}.mid", pedal=True).pitched[:, :3].tolist()
    assert played == pytest.approx([1.0, 1.5, 52], abs=0.01)


def test_babyslakh_becomes_pairs(server, tmp_path: Path) -> None:
    notes = np.array([[1.0, 2.0, 60, 80], [31.0, 32.0, 64, 80], [59.5, 61.0, 67, 80], [61.0, 62.0, 70, 80]])
    write_midi(tmp_path / "x.mid", Score.from_seconds([(instrument_of(0), notes)]))
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        for name, content in (("mix.wav", wave(62)), ("all_src.mid", (tmp_path / "x.mid").read_bytes())):
            info = tarfile.TarInfo(f"babyslakh_16k/Track00001/{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    chosen = public_sets.SETS["babyslakh"]._replace(remotes=(remote(*server, "b.tar.gz", file.getvalue()),))
    assert make(chosen, tmp_path / "out", tmp_path / "cache") == 1
    played = read_notes(tmp_path / "out" / "Track00001.mid", pedal=True).pitched[:, :3]
    np.testing.assert_allclose(played, [[1, 2, 64], [29.5, 30, 67]], atol=0.02)
    assert soundfile.info(tmp_path / "out" / "Track00001.wav").duration == pytest.approx(30)


def test_what_is_not_the_file_meant_is_refused_and_removed(server, tmp_path: Path) -> None:
    good = remote(*server, "a.zip", b"content")
    with pytest.raises(ValueError, match="its md5 is"):
        fetch(good._replace(md5="0" * 32), tmp_path)
    assert not list(tmp_path.glob("*.zip"))
    with pytest.raises(ValueError, match="cannot be fetched"):
        fetch(good._replace(url=good.url.replace("a.zip", "b.zip")), tmp_path)
    assert fetch(good, tmp_path).read_bytes() == b"content"
