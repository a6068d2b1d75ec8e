"""Reading the variables of a TensorFlow 1 checkpoint, `NAME.index` and `NAME.data-00000-of-00001`.

Executes no code in them and needs no TensorFlow. Source: TensorFlow's tensor_bundle.proto and its table format, which
is LevelDB's: blocks of entries whose keys share prefixes, an index of the blocks, and a footer that names the index.
Checksums are not compared.
"""

import math
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from geodtr.runtime.errors import CheckpointError
from geodtr.runtime.files import check_file

SUFFIX = ".index"
_SHARD = ".data-00000-of-00001"
_MAGIC = 0xDB4775248B80FB57
_FOOTER = 48
_LARGEST_INDEX = 1 << 26
_TYPES: Mapping[int, str] = {1: "<f4", 2: "<f8", 3: "<i4", 9: "<i8"}
_DTYPE, _SHAPE, _SHARD_ID, _OFFSET, _SIZE, _SLICES = 1, 2, 3, 4, 5, 7
"""Fields of a BundleEntryProto."""
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
"""Wire types of protocol buffers."""

Message = dict[int, list[int | bytes]]


class _Damaged(Exception):
    """What is read is no table, or no entry."""


def read_variables(index: Path) -> dict[str, Tensor]:
    """The checkpoint's variables by name. Raises CheckpointError when a file is missing or damaged."""
    data = data_of(index)
    check_file(index, CheckpointError)
    check_file(data, CheckpointError, f"It holds the values that {index.name} names. Copy both.")
    if index.stat().st_size > _LARGEST_INDEX:
        raise CheckpointError(f"{index} has {index.stat().st_size:,} bytes; no checkpoint's index is that large.")
    values = np.memmap(data, np.uint8, "r") if data.stat().st_size else np.empty(0, np.uint8)
    try:
        return {name: _variable(name, entry, values) for name, entry in _entries(index.read_bytes())}
    except (_Damaged, IndexError, struct.error, UnicodeDecodeError) as error:
        raise CheckpointError(
            f"{index} is not the index of a TensorFlow checkpoint, or is damaged ({error}). Copy it again, with "
            f"{data.name}."
        ) from None


def data_of(index: Path) -> Path:
    """The file that holds the values of an `index`."""
    return index.with_name(index.name.removesuffix(SUFFIX) + _SHARD)


def index_of(part: Path) -> Path | None:
    """The index of the checkpoint that `part`, its values or its graph, belongs to; None if it is no such part."""
    for ending in (_SHARD, ".meta"):
        if part.name.endswith(ending):
            index = part.with_name(part.name.removesuffix(ending) + SUFFIX)
            return index if index.is_file() else None
    return None


def _entries(content: bytes) -> Iterator[tuple[str, Message]]:
    if len(content) < _FOOTER or struct.unpack_from("<Q", content, len(content) - 8)[0] != _MAGIC:
        raise _Damaged("it has no footer")
    footer = content[-_FOOTER:]
    _, place = _handle(footer, 0)
    (start, size), _ = _handle(footer, place)
    for _, of_block in _block(content, start, size):
        (start, size), _ = _handle(of_block, 0)
        for key, value in _block(content, start, size):
            if key:  # the empty one is the header
                yield key.decode(), _message(value)


def _handle(content: bytes, place: int) -> tuple[tuple[int, int], int]:
    """Start and size of a block, and where the bytes behind them begin."""
    start, place = _varint(content, place)
    size, place = _varint(content, place)
    return (start, size), place


def _block(content: bytes, start: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values; a key repeats so many bytes of the one before it."""
    block = content[start : start + size]
    if len(block) != size or content[start + size] != 0:
        raise _Damaged("a block is cut short or compressed")
    (restarts,) = struct.unpack_from("<I", block, size - 4)
    end, place, key = size - 4 - 4 * restarts, 0, b""
    while place < end:
        shared, place = _varint(block, place)
        own, place = _varint(block, place)
        length, place = _varint(block, place)
        key = key[:shared] + block[place : place + own]
        place += own + length
        if place > end:
            raise _Damaged("an entry is cut short")
        yield key, block[place - length : place]


def _variable(name: str, entry: Message, values: np.ndarray[tuple[int], np.dtype[np.uint8]]) -> Tensor:
    dtype, shard, offset, size = (_number(entry, field) for field in (_DTYPE, _SHARD_ID, _OFFSET, _SIZE))
    if dtype not in _TYPES or shard or _SLICES in entry:
        raise _Damaged(f"{name} is of type {dtype}, in part {shard}; read are plain numbers in one file")
    shape = [_number(_message(dim), 1) for dim in _parts(_message(b"".join(_parts(entry, _SHAPE))), 2)]
    kind = np.dtype(_TYPES[dtype])
    if size != kind.itemsize * math.prod(shape) or offset + size > len(values):
        raise _Damaged(f"{name} {shape} is not at bytes {offset} to {offset + size} of {len(values)}")
    return torch.from_numpy(np.array(values[offset : offset + size]).view(kind).reshape(shape))


def _message(content: bytes) -> Message:
    """A protocol buffer's fields by number, each with its values in order."""
    fields: Message = {}
    place = 0
    while place < len(content):
        tag, place = _varint(content, place)
        value: int | bytes
        wire = tag & 7
        if wire == _VARINT:
            value, place = _varint(content, place)
        elif wire in (_BYTES, _FIXED32, _FIXED64):
            length = {_FIXED32: 4, _FIXED64: 8}.get(wire)
            if length is None:
                length, place = _varint(content, place)
            value, place = content[place : place + length], place + length
            if place > len(content):
                raise _Damaged("a field is cut short")
        else:
            raise _Damaged(f"a field of wire type {wire}")
        fields.setdefault(tag >> 3, []).append(value)
    return fields


def _number(message: Message, field: int) -> int:
    """The field's last value; 0 where there is none."""
    value = message.get(field, [0])[-1]
    if not isinstance(value, int):
        raise _Damaged(f"field {field} is no number")
    return value


def _parts(message: Message, field: int) -> list[bytes]:
    values = message.get(field, [])
    if not all(isinstance(value, bytes) for value in values):
        raise _Damaged(f"field {field} is no message")
    return [value for value in values if isinstance(value, bytes)]


def _varint(content: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 64:
        byte = content[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
        shift += 7
    raise _Damaged("a number is too long")
