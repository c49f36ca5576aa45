import itertools
import json
from collections import Counter

import numpy as np
import pytest

from mfm_jax.records import pack, shard_path, write_shard
from mfm_jax.training.data import ClipData, audio_batches
from mfm_jax.training.pipeline import WHOLE, Share, batches, folders_of

SETTINGS = ClipData(batch=4, threads=2, ahead=3, seed=5)
RECORDS = [bytes([i]) for i in range(10)]  # batches of 4 do not end with the epochs


def cut(blob, rng):
    return {"record": np.int32(blob[0]), "drawn": rng.random()}


def stream(share=WHOLE, sources=((RECORDS, 1.0),), settings=SETTINGS, epochs=None):
    return iter(batches(list(sources), cut, settings, epochs, share))


def joined(parts):
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name])


@pytest.mark.parametrize("count", [1, 2, 4])
def test_processes_together_read_what_one_reads(count):
    alone = stream()
    together = [stream(Share(index, count)) for index in range(count)]
    for _ in range(12):  # almost five epochs
        same(next(alone), joined([next(part) for part in together]))
    places = [json.dumps(part.get_state()) for part in (alone, *together)]
    assert len(set(places)) == 1


def test_another_number_of_processes_goes_on_exactly():
    alone = list(itertools.islice(stream(), 9))
    step = 0
    place = None
    for count, steps in ((2, 3), (4, 2), (1, 4)):
        together = [stream(Share(index, count)) for index in range(count)]
        if place is not None:
            for part in together:
                part.set_state(json.loads(place))
        for _ in range(steps):
            same(alone[step], joined([next(part) for part in together]))
            step += 1
        place = json.dumps(together[0].get_state())
    assert step == 9


def test_every_record_comes_once_in_an_epoch_each_time_in_another_order():
    order = np.concatenate([batch["record"] for batch in itertools.islice(stream(), 10)])
    epochs = order.reshape(4, 10)
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4
    drawn = np.concatenate([batch["drawn"] for batch in itertools.islice(stream(), 10)])
    assert len(set(drawn)) == 40


def test_epochs_end():
    assert len(list(stream(epochs=2))) == 5
    assert len(list(stream(Share(1, 2), epochs=1))) == 2


def test_sources_are_mixed_by_weight_and_keep_their_epochs():
    other = [bytes([i]) for i in range(100, 104)]
    mixed = ((RECORDS, 3.0), (other, 1.0))
    order = np.concatenate([b["record"] for b in itertools.islice(stream(sources=mixed), 10)])
    assert Counter(order >= 100) == {False: 30, True: 10}
    assert all(sorted(order[order < 100][i : i + 10]) == list(range(10)) for i in (0, 10, 20))
    together = [stream(Share(index, 2), mixed) for index in range(2)]
    for start in range(0, 40, 4):
        np.testing.assert_array_equal(
            joined([next(part) for part in together])["record"], order[start : start + 4]
        )


def test_folders_have_weights(tmp_path):
    for name, value in (("a", 1), ("b", 2)):
        (tmp_path / name).mkdir()
        blobs = [pack({"audio": np.full(16_384, value, np.int16)}, {"id": str(i)}) for i in range(3)]
        write_shard(shard_path(tmp_path / name, "clips", 0, 1), blobs)
    a, b = str(tmp_path / "a"), str(tmp_path / "b")
    settings = ClipData(batch=4, frames=64)
    one = next(iter(audio_batches(a, settings)))["audio"]
    assert one.shape == (4, 16_384)
    assert set(one[:, 0]) == {1}
    both = next(iter(audio_batches({a: 1.0, b: 3.0}, settings)))["audio"]
    assert sorted(both[:, 0]) == [1, 2, 2, 2]
    assert folders_of({a: 1.0, b: 0.0}) == {a: 1.0}
    with pytest.raises(ValueError, match="a weight of -1"):
        audio_batches({a: -1.0}, settings)
    with pytest.raises(ValueError, match="no folder to read"):
        audio_batches({a: 0.0}, settings)


def test_a_batch_must_divide_among_the_processes():
    with pytest.raises(ValueError, match="batch of 4: must be a multiple of the 3 processes"):
        stream(Share(0, 3))
