import json

import numpy as np
import pytest

from mfm_jax.building import Job, Made, build
from mfm_jax.records import pack, read, shards


def records(index):
    if index == 2:
        return Made([], [("c", "nothing in it")])
    return Made([pack({"x": np.full(3, index, np.int16)}, {"index": index})], [])


def content(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


def test_parts_work_side_by_side_and_the_last_writes_the_manifest(tmp_path):
    whole = build(tmp_path / "whole", "a", {"seed": 1}, 5, records)
    assert build(tmp_path / "parts", "a", {"seed": 1}, 5, records, part=(1, 2)) == {}
    assert not (tmp_path / "parts" / "manifest.json").exists()
    assert build(tmp_path / "parts", "a", {"seed": 1}, 5, records, part=(0, 2)) == whole
    assert content(tmp_path / "parts") == content(tmp_path / "whole")
    assert [facts["index"] for _, facts in read(shards(tmp_path / "parts"))] == [0, 1, 3, 4]


def test_results_may_be_files_of_their_own(tmp_path):
    def work(index):
        (tmp_path / f"{index}.txt").write_text("done")
        return Made([], [], files=1)

    assert build(tmp_path, "a", {}, 3, work)["records"] == 3
    assert not list(tmp_path.glob("*.array_record"))


def test_a_worker_loads_once_and_leaves_whole_shards_alone(tmp_path):
    loaded, made = [], []

    def make(index):
        made.append(index)
        return records(index)

    def load():
        loaded.append(1)

    build(tmp_path, "a", {}, 3, make, load=load)
    assert (loaded, made) == ([1], [0, 1, 2])
    build(tmp_path, "a", {}, 3, make, load=load)
    assert (loaded, made) == ([1], [0, 1, 2])
    job = Job(tmp_path, "a", 3, make)
    assert job(2)["skipped"] == [["c", "nothing in it"]]
    assert made == [0, 1, 2]


def test_what_a_killed_run_left_half_written_goes(tmp_path):
    build(tmp_path, "a", {}, 3, records)
    (tmp_path / ".a-00001.json").unlink()
    left = tmp_path / ".a-00001-of-00003.0123abcd.part"
    left.write_bytes(b"half")
    before = content(tmp_path)["a-00001-of-00003.array_record"]
    build(tmp_path, "a", {}, 3, records)
    assert not left.exists()
    assert content(tmp_path)["a-00001-of-00003.array_record"] == before
    assert json.loads((tmp_path / "manifest.json").read_text())["records"] == 2


def test_beam_makes_the_same_shards(tmp_path):
    pytest.importorskip("apache_beam")
    from mfm_jax.beam import Beam

    plain = build(tmp_path / "plain", "a", {"seed": 1}, 5, records)
    assert build(tmp_path / "beam", "a", {"seed": 1}, 5, records, Beam()) == plain
    assert content(tmp_path / "beam") == content(tmp_path / "plain")
