"""The files of a form (multipart/form-data, RFC 7578), taken apart in memory as it comes.

Parsers that come with web frameworks write large files to the disk; here nothing of a request touches it.
"""

import logging
from io import BytesIO
from typing import TYPE_CHECKING

import anyio
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

FIELD = "image"
_NAME = 200
_PIECE = 1 << 14
"""Bytes that are parsed at a time: about a millisecond where they are made to be slow."""

logging.getLogger("python_multipart").setLevel(logging.ERROR)  # what strangers send is not worth a line


class FormError(ValueError):
    """What is wrong with a form."""


class _Parts:
    """What the parser calls. It does not know the parser: in a circle, the files would stay until a collection."""

    def __init__(self, most: int) -> None:
        self.files = list[tuple[str, bytes]]()
        self.ended = False
        self._most = most
        self._header, self._value, self._content = bytearray(), bytearray(), BytesIO()
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
        if len(self.files) == self._most:
            raise FormError(f"It holds more files than {self._most}")
        self._content, self._disposition = BytesIO(), b""

    def _add_header(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _add_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_header(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = bytes(self._value)
        self._header, self._value = bytearray(), bytearray()

    def _add_content(self, data: bytes, start: int, end: int) -> None:
        self._content.write(data[start:end])

    def _end_part(self) -> None:
        _, options = parse_options_header(self._disposition)
        field = options.get(b"name", b"").decode("utf-8", "replace")
        if field != FIELD:
            raise FormError(f"It holds a field {field[:40]!r}; every file's is {FIELD!r}")
        name = options.get(b"filename", b"").decode("utf-8", "replace")
        self.files.append((name[:_NAME] or FIELD, self._content.getvalue()))  # which copies nothing
        self._content = BytesIO()

    def _end(self) -> None:
        self.ended = True


class FormReader:
    """Takes the blocks of a form, and gives its files."""

    def __init__(self, content_type: str, most: int) -> None:
        """`most` is how many files there may be. Raises FormError."""
        _, options = parse_options_header(content_type)
        boundary = options.get(b"boundary", b"")
        if not boundary:
            raise FormError("Its Content-Type names no boundary")
        self._parts = _Parts(most)
        try:
            self._parser = MultipartParser(boundary, self._parts.callbacks)
        except FormParserError as error:
            raise FormError(str(error)) from None

    async def write(self, block: bytes) -> None:
        """The next block. Others have a turn in between. Raises FormError."""
        try:
            for start in range(0, len(block), _PIECE):
                self._parser.write(block[start : start + _PIECE])
                await anyio.sleep(0)
        except FormParserError as error:
            raise FormError(str(error)) from None

    def files(self) -> list[tuple[str, bytes]]:
        """Names and bytes, after the last block. Raises FormError where the form has no end."""
        if not self._parts.ended:
            raise FormError("It breaks off before its end")
        return self._parts.files
