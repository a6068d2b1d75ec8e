"""A TensorFlow 1 checkpoint as its Saver leaves one: `NAME.index` and `NAME.data-00000-of-00001`.

The real one in tests/conformance/tensorflow holds the reader to TensorFlow; this one brings other variables.
"""

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MAGIC = 0xDB4775248B80FB57
_DTYPES = {"float32": 1, "float64": 2, "int32": 3, "int64": 9}


def save_tensorflow(path: Path, variables: Mapping[str, NDArray[Any]]) -> Path:
    """Write `path`.index and the values beside it; return the index."""
    header = _field(1, 1) + _field(3, _field(1, 1))
    entries, data = [(b"", header)], b""
    for name, array in sorted(variables.items()):
        shape = b"".join(_field(2, _field(1, size)) for size in array.shape)
        content = np.ascontiguousarray(array).tobytes()
        where = _field(4, len(data)) + _field(5, len(content))
        entries.append((name.encode(), _field(1, _DTYPES[array.dtype.name]) + _field(2, shape) + where))
        data += content
    path.with_name(f"{path.name}.data-00000-of-00001").write_bytes(data)
    table, handles = b"", []
    for start in range(0, len(entries), 40):  # several blocks, as there are in large files
        block = _block(entries[start : start + 40])
        handles.append((entries[min(start + 39, len(entries) - 1)][0], _varint(len(table)) + _varint(len(block) - 5)))
        table += block
    places = b""
    for block in (_block([]), _block(handles)):
        places += _varint(len(table)) + _varint(len(block) - 5)
        table += block
    index = path.with_name(f"{path.name}.index")
    index.write_bytes(table + places.ljust(40, b"\0") + struct.pack("<Q", _MAGIC))
    return index


def _block(entries: list[tuple[bytes, bytes]]) -> bytes:
    """Keys share what they begin with; behind the block, its type and a checksum that the reader does not compare."""
    content, before = b"", b""
    for key, value in entries:
        shared = next(
            (i for i, (a, b) in enumerate(zip(key, before, strict=False)) if a != b), min(len(key), len(before))
        )
        content += _varint(shared) + _varint(len(key) - shared) + _varint(len(value)) + key[shared:] + value
        before = key
    return content + struct.pack("<II", 0, 1) + bytes(5)


def _field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, bytes):
        return _varint(number << 3 | 2) + _varint(len(value)) + value
    return _varint(number << 3) + _varint(value)


def _varint(value: int) -> bytes:
    content = b""
    while value > 0x7F:
        content += bytes([value & 0x7F | 0x80])
        value >>= 7
    return content + bytes([value])
