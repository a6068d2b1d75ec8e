"""SQLite's write-ahead log of a gallery's table, as a killed writer leaves it: whether SQLite will read all of it.

At the first frame whose checksum is wrong SQLite stops, and takes what follows for a transaction that was never
committed; with the last connection it deletes the log. Format: sqlite.org/fileformat2.html#walformat
"""

import struct

_HEADER, _FRAME = 32, 24
_BIG_ENDIAN = 0x377F0683
_MASK = 0xFFFFFFFF


def has_lost_commit(log: bytes, page: int) -> bool:
    """Whether a transaction is committed behind the place where SQLite stops, in a log of pages of `page` bytes.

    Frames from before the log's last restart have other salts; half of one is enough to know this one's frames by.
    """
    if len(log) < _HEADER:
        return False
    magic, *_, salt, salt_2, first, second = struct.unpack(">8I", log[:_HEADER])
    order = ">" if magic == _BIG_ENDIAN else "<"
    sums = _add(log[:24], order, (0, 0))
    whole = intact = sums == (first, second)
    for start in range(_HEADER, len(log) - _FRAME - page + 1, _FRAME + page):
        header, content = log[start : start + _FRAME], log[start + _FRAME : start + _FRAME + page]
        _, commit, frame_salt, frame_salt_2, *stored = struct.unpack(">6I", header)
        if intact and (frame_salt, frame_salt_2) == (salt, salt_2):
            sums = _add(header[:8] + content, order, sums)
            if sums == tuple(stored):
                continue
        intact = False
        if commit and (not whole or frame_salt == salt or frame_salt_2 == salt_2):
            return True
    return False


def _add(data: bytes, order: str, sums: tuple[int, int]) -> tuple[int, int]:
    first, second = sums
    words = struct.unpack(f"{order}{len(data) // 4}I", data)
    for one, other in zip(words[::2], words[1::2], strict=True):
        first = (first + one + second) & _MASK
        second = (second + other + first) & _MASK
    return first, second
