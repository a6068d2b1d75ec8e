"""JSON, TOML, YAML and XML from files that are not trusted: up to a size and a depth; numbers of at most 64 bits, and
each key once, where documents state those.

Every document is parsed here.
"""

import json
import sys
from collections.abc import Callable, Mapping
from math import isfinite
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar
from xml.etree.ElementTree import Element, ParseError, TreeBuilder, XMLParser

import msgspec

from geodtr.runtime.files.reading import open_to_read, too_large
from geodtr.runtime.installation import needing

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

T = TypeVar("T")

MAX_BYTES = 8 << 20
"""Size of a document where its reader names no other: a manifest has some 10 kB."""
MAX_TOML_BYTES = 64 << 10
"""Size of a TOML document: a configuration has 2 kB, and the parser's time grows with the square of a key's parts."""
MAX_YAML_BYTES = 64 << 10
"""A camera's calibration has 2 kB, and the parser without C takes seconds for this size."""
MAX_XML_BYTES = 1 << 20
MAX_DEPTH = 64
_LARGEST = 2**64 - 1
_DIGITS = len(str(_LARGEST))
_BRACKETS = b"[]{}"
_OTHERS = bytes(set(range(256)) - {*_BRACKETS})
_TOO_DEEP = f"it is nested more than {MAX_DEPTH} deep"
_TOO_LARGE = f"it has an integer of more than 64 bits ({_DIGITS} digits)"


class DocumentError(msgspec.DecodeError):
    """A document that is well-formed and beyond what is read."""


def read_document(path: Path, most: int = MAX_BYTES) -> bytes:
    """The bytes of a regular file. Raises OSError when it is another kind of file (a pipe would block its reader), or
    has more than `most` bytes.
    """
    with open_to_read(path, most) as file:
        content = file.read(most + 1)
    if len(content) > most:  # it has grown since
        raise too_large(path, most)
    return content


def decode_json(content: bytes | str, kind: type[T], *, strict: bool = True) -> T:
    """Validate JSON as `kind`. Raises msgspec.DecodeError, and of it DocumentError for what is beyond the limits."""
    data = content.encode("utf-8", "replace") if isinstance(content, str) else content
    try:
        text = data.decode("utf-8-sig")
        if sum(map(data.count, (b"[", b"{"))) > MAX_DEPTH:
            _check_depth(data)
        _CHECKER.decode(text)
    except (UnicodeDecodeError, json.JSONDecodeError):
        pass  # msgspec names the place
    except RecursionError:
        raise DocumentError(_TOO_DEEP) from None
    try:
        return msgspec.json.decode(data, type=kind, strict=strict)
    except UnicodeDecodeError as error:
        raise msgspec.DecodeError(f"it is not UTF-8 ({error})") from None


def encode_json(document: Any, enc_hook: Callable[[Any], Any] | None = None, indent: int | None = None) -> bytes:
    """JSON in UTF-8, in one line where `indent` is None.

    A byte of a file name that is not UTF-8, which Python keeps as a lone surrogate, is written as the escape of one:
    Python's json.loads and os.fsencode give the byte back.
    """
    try:
        content = msgspec.json.encode(document, enc_hook=enc_hook)
        return content if indent is None else msgspec.json.format(content, indent=indent)
    except UnicodeEncodeError:
        return json.dumps(_finite(msgspec.to_builtins(document, enc_hook=enc_hook)), indent=indent).encode()


def decode_toml(text: str) -> dict[str, Any]:
    """Parse TOML. Raises msgspec.DecodeError, and of it DocumentError for what is beyond the limits."""
    if len(text) > MAX_TOML_BYTES:
        raise DocumentError(f"it has more than {MAX_TOML_BYTES:,} characters")
    if any(line.count(".") > MAX_DEPTH for line in text.splitlines()):
        raise DocumentError(f"it has a line with more than {MAX_DEPTH} dots, which is not searched for a key's parts")
    try:
        values = tomllib.loads(text)
    except RecursionError:
        raise DocumentError(_TOO_DEEP) from None
    except tomllib.TOMLDecodeError as error:
        raise msgspec.DecodeError(str(error)) from None
    except ValueError:  # Python converts no integer of more than 4,300 digits
        raise DocumentError(_TOO_LARGE) from None
    _check_values(values)
    return values


def decode_yaml(text: str, tags: Mapping[str, Callable[[Any], Any]] = MappingProxyType({})) -> Any:
    """Parse YAML of plain values; `tags` makes something of the mapping behind a tag. Aliases are refused, as a few
    lines of them fill any memory. Raises msgspec.DecodeError; MissingDependency without PyYAML.
    """
    with needing("YAML needs PyYAML", "video"):
        import yaml
    if len(text) > MAX_YAML_BYTES:
        raise DocumentError(f"it has more than {MAX_YAML_BYTES:,} characters")

    base = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where PyYAML was built with it

    class Loader(base):  # type: ignore[valid-type, misc] # the package is optional
        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            keys = [key.value for key, _ in node.value]
            _without_doubles([(key, None) for key in keys if isinstance(key, str)])
            return dict(super().construct_mapping(node, deep=deep))

    for tag, make in tags.items():
        Loader.add_constructor(tag, lambda loader, node, make=make: make(loader.construct_mapping(node, deep=True)))
    try:
        depth = 0
        for event in yaml.parse(text, Loader=base):
            if isinstance(event, yaml.AliasEvent):
                raise DocumentError("it has an alias (*), which is not followed")
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_DEPTH:
                raise DocumentError(_TOO_DEEP)
        values = yaml.load(text, Loader=Loader)
    except yaml.YAMLError as error:
        raise msgspec.DecodeError(" ".join(str(error).split())) from None
    except (ValueError, OverflowError, AttributeError, TypeError) as error:
        # What PyYAML raises of dates, integers and tags that are none.
        raise error if isinstance(error, msgspec.DecodeError) else msgspec.DecodeError(str(error)) from None
    return values


def decode_xml(content: bytes) -> Element:
    """Parse XML. Document types are refused, and with them entities. Raises msgspec.DecodeError."""
    if len(content) > MAX_XML_BYTES:
        raise DocumentError(f"it has more than {MAX_XML_BYTES:,} bytes")
    parser = XMLParser(target=_ShallowBuilder())
    try:
        parser.feed(content)
        root: Element = parser.close()
    except (ParseError, ValueError, LookupError) as error:
        raise error if isinstance(error, DocumentError) else msgspec.DecodeError(str(error)) from None
    return root


class _ShallowBuilder(TreeBuilder):
    """Refuses what could make a tree larger than its text."""

    depth = 0

    def start(self, tag: str, attrs: dict[Any, Any], /) -> Element:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise DocumentError(_TOO_DEEP)
        return super().start(tag, attrs)

    def end(self, tag: str, /) -> Element:
        self.depth -= 1
        return super().end(tag)

    def doctype(self, *_: str | None) -> None:
        raise DocumentError("it declares a document type, which is not read")


def _finite(value: Any) -> Any:
    """The value with null for what is no finite number, as msgspec has it."""
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not isfinite(value) else value


def _check_depth(data: bytes) -> None:
    """Brackets outside strings; the quotes of a string are not escaped ones."""
    depth = 0
    for part in data.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')[::2]:
        for bracket in part.translate(None, _OTHERS):
            depth += 1 if bracket in b"[{" else -1
            if depth > MAX_DEPTH:
                raise DocumentError(_TOO_DEEP)


def _check_values(values: Any) -> None:
    """Level by level, so that no depth reaches Python's own limit."""
    level: list[Any] = [values]
    for _ in range(MAX_DEPTH + 1):
        if not level:
            return
        if any(isinstance(value, int) and abs(value) > _LARGEST for value in level):
            raise DocumentError(_TOO_LARGE)
        level = [
            inner
            for value in level
            if isinstance(value, dict | list)
            for inner in (value.values() if isinstance(value, dict) else value)
        ]
    raise DocumentError(_TOO_DEEP)


def _without_doubles(pairs: list[tuple[str, Any]]) -> None:
    seen = set[str]()
    for key, _ in pairs:
        if key in seen:
            raise DocumentError(f"it has the key {key!r} twice")
        seen.add(key)


def _bounded(digits: str) -> int:
    if len(digits.lstrip("-")) > _DIGITS or not -_LARGEST <= int(digits) <= _LARGEST:
        raise DocumentError(_TOO_LARGE)
    return 0


_CHECKER = json.JSONDecoder(object_pairs_hook=_without_doubles, parse_int=_bounded)
