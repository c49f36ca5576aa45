import os
import pickle
import random
import zipfile
from pathlib import Path

import numpy as np
import pytest

from mfm_jax.convert.archive import Archive, flat_tensors
from mfm_jax.convert.pickles import Name, Stored, read_pickle

GOLDEN = Path(__file__).parents[1] / "golden" / "rave"


class Calls:
    """An object whose pickle calls a function."""

    def __init__(self, function, *arguments):
        self.plan = function, arguments

    def __reduce__(self):
        return self.plan


def archive(path, data, members=None, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as file:
        file.writestr("m/data.pkl", data)
        for name, content in (members or {}).items():
            file.writestr(name, content)
    return path


def test_plain_values_come_back():
    value = {"a": [1, 2.5, None, True, False, "text", b"bytes", (1, 2), (1, 2, 3, 4), -7, 2**40], "b": {}}
    for protocol in (3, 4, 5):
        assert read_pickle(pickle.dumps(value, protocol)) == value


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("function", [os.system, eval, exec, open, getattr, __import__, pickle.loads])
def test_a_hostile_pickle_runs_nothing(tmp_path, protocol, function):
    mark = tmp_path / "run"
    data = pickle.dumps({"state_dict": Calls(function, f"touch {mark}", "w")}, protocol)
    with pytest.raises(ValueError, match=r"do not trust|damaged"):
        Archive(archive(tmp_path / "bad.ckpt", data))
    assert not mark.exists()


def test_known_names_are_kept_as_text_only():
    made = read_pickle(pickle.dumps({"path": Path("/etc/passwd")}))
    assert made["path"].name.module == "pathlib"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b".",
        b"\x80\x02",
        b"\x80\x02}q\x00",
        b"\x80\x02h\x05.",
        b"\x80\x02R.",
        b"(((((",
        b"\x80\x02Nt.",
        b"e.",
    ],
)
def test_damaged_pickles_are_refused(data):
    with pytest.raises(ValueError, match=r"pickle|opcode"):
        read_pickle(data)


def test_a_pickle_that_holds_itself_is_read():
    value = []
    value.append(value)
    made = read_pickle(pickle.dumps(value))
    assert made[0] is made


def test_shared_objects_do_not_multiply(tmp_path):
    value = [0]
    for _ in range(200):
        value = [value, value]
    path = archive(tmp_path / "deep.ckpt", pickle.dumps({"state_dict": value}))
    with pytest.raises(ValueError, match="too deep"):
        Archive(path)


def test_compressed_members_are_refused(tmp_path):
    bomb = {"m/data/0": bytes(64 * 2**20)}
    path = archive(tmp_path / "bomb.ckpt", pickle.dumps({}), bomb, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 2**20
    with pytest.raises(ValueError, match="compressed"):
        Archive(path)


def test_claims_beyond_the_file_are_refused(tmp_path):
    path = archive(tmp_path / "a.ckpt", pickle.dumps({}), {"m/data/0": bytes(1000)})
    data = bytearray(path.read_bytes())
    place = data.rindex(b"PK\x01\x02")  # the last member's entry in the directory
    for at in (place + 20, place + 24):
        data[at : at + 4] = (2**31 - 1).to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"claims|archive"):
        Archive(path)


@pytest.mark.parametrize(
    ("field", "value"),
    [("stored", 10**9), ("offset", 10**6), ("shape", (10**6, 4)), ("strides", (10**6, 1)), ("offset", -1)],
)
def test_tensors_beyond_their_storage_are_refused(tmp_path, field, value):
    opened = Archive(GOLDEN / "v1.ckpt")
    info = opened.content["state_dict"]["latent_pca"]
    good = opened.read(info)
    assert good.shape == (4, 4)
    changed = info._replace(**{field: value})
    key = info.member.rsplit("/", 1)[1]
    storage = Stored(("storage", Name("torch", "FloatStorage"), key, "cpu", changed.stored))
    with pytest.raises(ValueError, match=r"pickle|bytes"):
        opened.read(opened._tensor((storage, changed.offset, changed.shape, changed.strides, False, {})))


def test_a_damaged_archive_is_refused_or_reads_the_same(tmp_path):
    whole = (GOLDEN / "discrete.ckpt").read_bytes()
    clean = Archive(GOLDEN / "discrete.ckpt")
    tensors = flat_tensors(clean.content["state_dict"])
    rng = random.Random(0)
    refused = 0
    for trial in range(120):
        data = bytearray(whole)
        if trial % 3 == 0:
            data = data[: rng.randrange(len(data))]
        elif trial % 3 == 1:
            for _ in range(rng.randrange(1, 30)):
                data[rng.randrange(len(data))] = rng.randrange(256)
        else:
            start, size = rng.randrange(len(data) - 400), rng.randrange(2, 400)
            piece = data[start : start + size]
            rng.shuffle(piece)
            data[start : start + size] = piece
        path = tmp_path / "damaged.ckpt"
        path.write_bytes(data)
        try:
            opened = Archive(path)
            for name, info in flat_tensors(opened.content["state_dict"]).items():
                array = opened.read(info)
                if name in tensors and info == tensors[name]:
                    np.testing.assert_array_equal(array, clean.read(tensors[name]))
        except (ValueError, KeyError):
            refused += 1
    assert refused > 60
