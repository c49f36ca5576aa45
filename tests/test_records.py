import json

import numpy as np
import pytest

from mfm_jax.music.instruments import instrument_of
from mfm_jax.music.notes import Score, Track
from mfm_jax.music.tempo import TempoMap
from mfm_jax.records import (
    pack,
    pack_score,
    read,
    score_of,
    shard_path,
    shards,
    unpack,
    write_manifest,
    write_shard,
)


def blob(index):
    return pack({"x": np.arange(index, index + 6, dtype=np.int16).reshape(2, 3)}, {"index": index})


def test_records_keep_arrays_and_facts():
    arrays = {
        "wave": np.arange(5, dtype=np.int16),
        "latent": np.ones((3, 2), np.float16),
        "flag": np.array([True, False]),
        "empty": np.zeros((0, 4), np.float32),
    }
    read_arrays, facts = unpack(pack(arrays, {"title": "Für Elise", "split": "train"}))
    assert facts == {"title": "Für Elise", "split": "train"}
    assert read_arrays.keys() == arrays.keys()
    for name, array in arrays.items():
        assert read_arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(read_arrays[name], array)


def test_scores_come_back():
    notes = np.array([[0, 12, 60, 80], [12, 24.5, 64, 90]], float)
    tempo = TempoMap((0.0, 12.0), (90.0, 100.0), ((0.0, 3, 4),))
    tracks = (Track(instrument_of(42), notes), Track(instrument_of(0, True), notes[:1]))
    score = Score(tracks, tempo, "Étude")
    arrays, facts = unpack(pack_score(score, {"audio": np.zeros(3, np.int16)}, {"id": "a"}))
    again = score_of(arrays, facts)
    assert again.tempo == tempo
    assert again.title == "Étude"
    assert [t.instrument for t in again.tracks] == [t.instrument for t in tracks]
    np.testing.assert_array_equal(again.tracks[0].notes, notes)
    assert facts["id"] == "a"
    assert arrays["audio"].shape == (3,)


def test_shards_appear_whole_and_in_order(tmp_path):
    for index in range(2):
        count = write_shard(shard_path(tmp_path, "a", index, 2), [blob(2 * index), blob(2 * index + 1)])
        assert count == 2
    assert [facts["index"] for _, facts in read(shards(tmp_path))] == [0, 1, 2, 3]
    write_manifest(tmp_path, {"name": "a"})
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert len(manifest["shards"]) == 2

    def failing():
        yield blob(0)
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        write_shard(shard_path(tmp_path, "b", 0, 1), failing())
    assert not list(tmp_path.glob("*b-*"))


def test_no_shards_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="prepare_data"):
        shards(tmp_path)
