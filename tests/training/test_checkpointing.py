import functools
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mfm_jax.training import checkpointing
from mfm_jax.training.checkpointing import Checkpoints, fault_of, kept

STATE = {"a": jnp.arange(3.0), "b": {"c": jnp.int32(4)}}


def at(step):
    return jax.tree.map(lambda x: x + step, STATE)


@pytest.fixture
def folder(tmp_path):
    checkpoints = Checkpoints(tmp_path / "c", keep=3)
    for step in (1, 2, 3):
        checkpoints.save(step, at(step), {"step": step, "data": {"n": step}})
    checkpoints.close()
    return tmp_path / "c"


def test_a_checkpoint_comes_back(folder):
    checkpoints = Checkpoints(folder)
    assert checkpoints.newest() == 3
    assert checkpoints.facts(3) == {"step": 3, "data": {"n": 3}}
    restored = checkpoints.restore(3, STATE)
    np.testing.assert_array_equal(restored["a"], np.arange(3.0) + 3)
    assert restored["b"]["c"] == 7
    checkpoints.close()


def test_an_empty_folder_has_none(tmp_path):
    checkpoints = Checkpoints(tmp_path / "c")
    assert checkpoints.newest() is None
    assert checkpoints.best() is None


@pytest.mark.parametrize(
    ("steps", "keep", "every", "best", "stay"),
    [
        ([1, 2, 3], 2, 0, None, {2, 3}),
        ([1, 2, 3], 2, 0, 1, {1, 2, 3}),
        ([5, 10, 15, 20, 25], 1, 10, 15, {10, 15, 20, 25}),
        ([5], 0, 0, None, {5}),
    ],
)
def test_what_is_kept(steps, keep, every, best, stay):
    assert kept(steps, keep, every, best) == stay


def test_the_best_stays_beside_the_newest_and_the_regular_ones(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=1, keep_every=4)
    for step, value in enumerate([5.0, 3.0, float("nan"), 4.0, 6.0, 2.5, 9.0, 8.0, 7.0], start=1):
        checkpoints.save(step, at(step), {})
        checkpoints.rate(step, value)
    checkpoints.wait()
    assert checkpoints.steps() == [4, 6, 8, 9]
    assert checkpoints.best() == 6
    checkpoints.close()
    again = Checkpoints(tmp_path, keep=1, keep_every=4)
    again.save(10, at(10), {})
    again.wait()
    assert again.steps() == [4, 6, 8, 10]
    assert Checkpoints(tmp_path, higher=True).best() == 8


def test_training_goes_on_while_it_writes(tmp_path, monkeypatch):
    """The saved arrays are those of the step, though the steps after it reuse their memory."""

    @functools.partial(jax.jit, donate_argnums=0)
    def step(state):
        return jax.tree.map(lambda x: x + 1, state)

    held = checkpointing.threading.Event()
    seal = checkpointing.seal
    monkeypatch.setattr(checkpointing, "seal", lambda part: (held.wait(60), seal(part)))
    checkpoints = Checkpoints(tmp_path, keep=1)
    state = {"a": jnp.zeros((500, 500)), "n": jnp.int32(0)}
    state = step(state)
    checkpoints.save(1, state, {})
    for _ in range(20):
        state = step(state)
    assert checkpoints.steps() == []  # not whole yet
    held.set()
    checkpoints.wait()
    restored = checkpoints.restore(1, state)
    np.testing.assert_array_equal(restored["a"], np.ones((500, 500)))
    assert restored["n"] == 1


def test_what_could_not_be_written_is_told(tmp_path, monkeypatch):
    def full(part):
        raise OSError("No space left on device")

    monkeypatch.setattr(checkpointing, "seal", full)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, STATE, {})
    with pytest.raises(OSError, match=r"could not be written \(No space left"):
        checkpoints.wait()
    assert checkpoints.newest() is None


def largest(step):
    return max((p for p in step.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def forge(step):
    told = json.loads((step / "manifest.json").read_text())
    told["files"]["facts/metadata"][1] = "0" * 64
    (step / "manifest.json").write_text(json.dumps(told))


def emptied(step):
    shutil.rmtree(step)
    step.mkdir()


DAMAGES = {
    "truncated": (lambda s: largest(s / "state").write_bytes(b""), "bytes, not"),
    "deleted": (lambda s: largest(s / "state").unlink(), "is missing"),
    "flipped": (lambda s: flip(largest(s / "state")), "another hash"),
    "garbage": (lambda s: (s / "facts" / "metadata").write_bytes(b"\0garbage"), "facts/metadata has 8 bytes"),
    "no state": (lambda s: shutil.rmtree(s / "state"), "is missing"),
    "no metadata": (lambda s: (s / "state" / "_METADATA").unlink(), "state/_METADATA is missing"),
    "no manifest": (lambda s: (s / "manifest.json").unlink(), "no manifest.json"),
    "garbage manifest": (lambda s: (s / "manifest.json").write_bytes(b"\xff{"), "not readable"),
    "manifest of a list": (lambda s: (s / "manifest.json").write_text("[]"), "not readable"),
    "other format": (lambda s: (s / "manifest.json").write_text('{"format": "x"}'), "of format x"),
    "wrong hash": (forge, "facts/metadata has another hash"),
    "emptied": (emptied, "no manifest.json"),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_newest_is_named_and_the_one_before_is_used(folder, capsys, kind):
    damage, told = DAMAGES[kind]
    damage(folder / "3")
    left = {p.relative_to(folder / "3"): p.stat().st_size for p in (folder / "3").rglob("*")}
    assert told in (fault_of(folder / "3") or "")
    checkpoints = Checkpoints(folder)
    assert checkpoints.newest() == 2
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("checkpoint 3 is damaged")
    assert told in line
    aside = folder / "3.damaged"
    assert {p.relative_to(aside): p.stat().st_size for p in aside.rglob("*")} == left
    np.testing.assert_array_equal(checkpoints.restore(2, STATE)["a"], np.arange(3.0) + 2)
    checkpoints.save(3, at(3), {})  # its name is free for the run that comes there again
    checkpoints.close()
    assert fault_of(folder / "3") is None


def test_if_none_is_whole_nothing_is_touched(folder):
    for step in (1, 2, 3):
        (folder / str(step) / "manifest.json").unlink()
    with pytest.raises(ValueError, match=r"no checkpoint is whole \(3: no manifest.json; 2: no .*; 1: no "):
        Checkpoints(folder).newest()
    assert Checkpoints(folder).steps() == [1, 2, 3]


def test_what_a_kill_left_half_is_removed(folder):
    (folder / "4.part" / "state").mkdir(parents=True)
    (folder / "0.going").mkdir()
    checkpoints = Checkpoints(folder)
    assert sorted(p.name for p in folder.iterdir()) == ["1", "2", "3"]
    assert checkpoints.newest() == 3


def test_it_comes_back_on_another_mesh(tmp_path):
    devices = jax.devices()
    if len(devices) < 2:
        pytest.skip("needs two devices")
    split = NamedSharding(Mesh(np.array(devices[:2]), ("data",)), PartitionSpec("data"))
    alone = NamedSharding(Mesh(np.array(devices[:1]), ("data",)), PartitionSpec())
    checkpoints = Checkpoints(tmp_path)
    for step, (one, other) in enumerate([(split, alone), (alone, split)]):
        x = jax.device_put(jnp.arange(8.0), one)
        checkpoints.save(step, {"x": x}, {})
        like = {"x": jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=other)}
        restored = checkpoints.restore(step, like)["x"] if checkpoints.wait() is None else None
        np.testing.assert_array_equal(restored, x)
        assert restored.sharding == other
