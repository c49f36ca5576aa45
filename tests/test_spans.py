import numpy as np
import pytest
from array_record.python.array_record_data_source import ArrayRecordDataSource
from array_record.python.array_record_module import ArrayRecordWriter

from mfm_jax.records import pack, shard_path, unpack, write_shard
from mfm_jax.spans import Spans, Stored, opened


def test_spans_are_the_records(tmp_path):
    """Sizes from nothing to several blocks of the file, so that records begin and end anywhere in them."""
    rng = np.random.default_rng(0)
    paths = []
    for number, sizes in enumerate(
        [(3, 70_000, 0, 32_768, 200_001), (), (1,), tuple(range(30_000, 34_000, 137))]
    ):
        blobs = [pack({"x": rng.integers(0, 99, n).astype(np.int16)}, {"n": n}) for n in sizes]
        paths.append(shard_path(tmp_path, "a", number, 4))
        write_shard(paths[-1], blobs)
    names = [str(path) for path in paths]
    whole, spans = ArrayRecordDataSource(names), Spans(names)
    assert len(spans) == len(whole) == 36
    for index, span in enumerate(spans):
        blob = whole[index]
        assert span.read(0, span.size) == blob
        for start in (0, 5, span.size // 2, span.size - 1):
            length = min(span.size - start, 1 + start)
            assert span.read(start, length) == blob[start : start + length]


def test_large_arrays_stay_in_the_file_until_they_are_cut(tmp_path):
    rng = np.random.default_rng(1)
    arrays = {
        "audio": rng.integers(-9, 9, 150_000).astype(np.int16),
        "latent": rng.normal(size=(500, 256)).astype(np.float16),
        "notes": rng.normal(size=(7, 4)).astype(np.float32),
    }
    facts = {"text": "é" * 80_000}  # a header longer than what is read at first
    write_shard(shard_path(tmp_path, "a", 0, 1), [pack(arrays, facts)])
    (span,) = Spans([str(shard_path(tmp_path, "a", 0, 1))])
    found, told = opened(span)
    assert told == facts
    assert isinstance(found["audio"], Stored)
    assert len(found["latent"]) == 500
    for name, part in (
        ("audio", slice(70_000, 90_000)),
        ("latent", slice(33, 401)),
        ("latent", slice(490, 900)),
    ):
        np.testing.assert_array_equal(found[name][part], arrays[name][part])
    np.testing.assert_array_equal(found["notes"], arrays["notes"])
    assert opened(pack(arrays, {}))[0]["latent"].shape == unpack(pack(arrays, {}))[0]["latent"].shape


@pytest.mark.parametrize("options", ["group_size:2,uncompressed", "group_size:1,zstd:3"])
def test_shards_of_others_are_refused(tmp_path, options):
    path = str(tmp_path / "a.array_record")
    writer = ArrayRecordWriter(path, options)
    for _ in range(4):
        writer.write(b"a" * 5_000)
    writer.close()
    with pytest.raises(ValueError, match="compressed, or with records in groups"):
        Spans([path])
