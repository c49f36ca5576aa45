"""Read a TensorFlow checkpoint (V2: `.index` and `.data-00000-of-00001`) without TensorFlow.

The index is a LevelDB table of protocol buffers: names of tensors to their type, shape and place in the data.
https://github.com/tensorflow/tensorflow/blob/master/tensorflow/core/protobuf/tensor_bundle.proto
"""

import struct
from collections.abc import Iterator

import numpy as np

_MAGIC = 0xDB4775248B80FB57
_FOOTER = 48  # bytes
_TYPES = {1: np.float32, 2: np.float64, 3: np.int32, 9: np.int64, 10: np.bool_}  # tensorflow.DataType
_VARINT, _EIGHT, _BYTES, _FOUR = 0, 1, 2, 5  # wire types of protocol buffers


def tensors(index: bytes, data: bytes, name: str = "checkpoint") -> dict[str, np.ndarray]:
    """Give the numeric tensors of a checkpoint of one shard by name.

    Raises:
        ValueError: not such a checkpoint, compressed, sharded, or cut off.
    """
    if len(index) < _FOOTER or struct.unpack("<Q", index[-8:])[0] != _MAGIC:
        raise ValueError(f"{name}: not the index of a TensorFlow checkpoint (V2)")
    found = {}
    try:
        for _, handle in _entries(_block(index, index[-_FOOTER:], 2, name)):
            for key, value in _entries(_block(index, handle, 0, name)):
                if key:  # the empty key holds the header
                    array = _tensor(_fields(value), data, f"{name}: {key.decode()}")
                    if array is not None:
                        found[key.decode()] = array
    except (IndexError, struct.error, UnicodeDecodeError):
        raise ValueError(f"{name}: a damaged index of a TensorFlow checkpoint") from None
    return found


def _block(index: bytes, handles: bytes, skip: int, name: str) -> bytes:
    """Give the block at the place that a handle tells: two numbers, after `skip` others."""
    offset, size = _varints(handles, skip + 2)[skip:]
    if index[offset + size] != 0:
        raise ValueError(f"{name}: the checkpoint's index is compressed; only plain ones are read")
    return index[offset : offset + size]


def _entries(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Give the pairs of a LevelDB block, whose keys share beginnings with the key before."""
    (restarts,) = struct.unpack("<I", block[-4:])
    end = len(block) - 4 * (restarts + 1)
    at, key = 0, b""
    while at < end:
        shared, at = _varint(block, at)
        fresh, at = _varint(block, at)
        length, at = _varint(block, at)
        key = key[:shared] + block[at : at + fresh]
        at += fresh
        yield key, block[at : at + length]
        at += length


def _tensor(entry: dict[int, list[int | bytes]], data: bytes, name: str) -> np.ndarray | None:
    """Read the tensor of a BundleEntryProto; None for types that are not numbers."""
    kind = _TYPES.get(_number(entry, 1))
    if kind is None:
        return None
    if _number(entry, 3):
        raise ValueError(f"{name}: lies in another shard; only checkpoints of one shard are read")
    offset, size = _number(entry, 4), _number(entry, 5)
    shapes = entry.get(2, [b""])[0]
    sides = _fields(shapes).get(2, []) if isinstance(shapes, bytes) else []
    shape = [_number(_fields(side), 1) for side in sides if isinstance(side, bytes)]
    if offset + size > len(data) or size != int(np.prod(shape)) * np.dtype(kind).itemsize:
        raise ValueError(f"{name}: {size} bytes at {offset} of {len(data)} do not hold a tensor of {shape}")
    return np.frombuffer(data, np.dtype(kind).newbyteorder("<"), int(np.prod(shape)), offset).reshape(shape)


def _number(fields: dict[int, list[int | bytes]], key: int) -> int:
    value = fields.get(key, [0])[-1]
    return value if isinstance(value, int) else 0


def _fields(message: bytes) -> dict[int, list[int | bytes]]:
    """Split a protocol buffer into its fields by number, undecoded."""
    found: dict[int, list[int | bytes]] = {}
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        wire = tag & 7
        value: int | bytes
        if wire == _VARINT:
            value, at = _varint(message, at)
        elif wire == _BYTES:
            length, at = _varint(message, at)
            value, at = message[at : at + length], at + length
        elif wire in (_FOUR, _EIGHT):
            width = 4 if wire == _FOUR else 8
            value, at = int.from_bytes(message[at : at + width], "little"), at + width
        else:
            raise IndexError("unknown wire type")
        found.setdefault(tag >> 3, []).append(value)
    return found


def _varints(message: bytes, count: int) -> list[int]:
    values, at = [], 0
    for _ in range(count):
        value, at = _varint(message, at)
        values.append(value)
    return values


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
