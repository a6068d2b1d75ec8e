"""The files of a form (multipart/form-data, RFC 7578), taken apart in memory.

Parsers that come with web frameworks write large files to the disk; here nothing of a request touches it.
"""

from typing import TYPE_CHECKING

import anyio
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from geodtr.runtime.serve.batching import Upload

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

FIELD = "image"
_NAME = 200
_PIECE = 1 << 20


class FormError(ValueError):
    """What is wrong with a form."""


class _Parts:
    """What the parser calls."""

    def __init__(self, most: int) -> None:
        self.uploads = list[Upload]()
        self.ended = False
        self._most = most
        self._header, self._value, self._content = bytearray(), bytearray(), bytearray()
        self._disposition = b""

    @property
    def callbacks(self) -> "MultipartCallbacks":
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._add_header,
            "on_header_value": self._add_value,
            "on_header_end": self._end_header,
            "on_part_data": self._add_content,
            "on_part_end": self._end_part,
            "on_end": self._end,
        }

    def _begin(self) -> None:
        if len(self.uploads) == self._most:
            raise FormError(f"It holds more files than {self._most}")
        self._content, self._disposition = bytearray(), b""

    def _add_header(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _add_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_header(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = bytes(self._value)
        self._header, self._value = bytearray(), bytearray()

    def _add_content(self, data: bytes, start: int, end: int) -> None:
        self._content += data[start:end]

    def _end_part(self) -> None:
        _, options = parse_options_header(self._disposition)
        field = options.get(b"name", b"").decode("utf-8", "replace")
        if field != FIELD:
            raise FormError(f"It holds a field {field[:40]!r}; every file's is {FIELD!r}")
        name = options.get(b"filename", b"").decode("utf-8", "replace")
        self.uploads.append(Upload(name[:_NAME] or FIELD, bytes(self._content)))

    def _end(self) -> None:
        self.ended = True


async def files_of(content: bytes, content_type: str, most: int) -> list[Upload]:
    """The files of a form, of which there may be `most`. Raises FormError."""
    _, options = parse_options_header(content_type)
    boundary = options.get(b"boundary", b"")
    if not boundary:
        raise FormError("Its Content-Type names no boundary")
    parts = _Parts(most)
    try:
        parser = MultipartParser(boundary, parts.callbacks)
        for start in range(0, len(content), _PIECE):
            parser.write(content[start : start + _PIECE])
            await anyio.sleep(0)  # others have a turn
        parser.finalize()
    except FormParserError as error:
        raise FormError(str(error)) from None
    if not parts.ended:
        raise FormError("It breaks off before its end")
    return parts.uploads
