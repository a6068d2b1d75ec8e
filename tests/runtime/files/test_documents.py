"""A document that is not trusted costs bounded memory and time, and is refused in words."""

import json
import os
from pathlib import Path

import msgspec
import pytest

from geodtr.runtime.errors import ConfigError
from geodtr.runtime.files.documents import MAX_DEPTH, DocumentError, decode_json, decode_toml, read_document
from geodtr.training.presets import read_preset
from geodtr.training.presets.load import load_preset


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


def test_json_is_read_up_to_its_limits() -> None:
    document = {"deep": json.loads(nested(MAX_DEPTH - 1)), "large": 2**64 - 1, "text": '[[{"' * 100}
    assert decode_json(json.dumps(document).encode(), dict[str, object]) == document
    assert decode_json('"\\u00e9"', str) == "é"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (nested(MAX_DEPTH + 1), "nested"),
        ("[" * 100_000, "nested"),
        ('{"a":' * 100_000, "nested"),
        ("9" * 5000, "64 bits"),
        (f"[-{2**64}]", "64 bits"),
        ('{"a": {"b": 1, "b": 1}}', "'b' twice"),
        ('{"b": 1, "\\u0062": 1}', "'b' twice"),
    ],
)
def test_json_beyond_them_is_refused(text: str, named: str) -> None:
    with pytest.raises(DocumentError, match=named):
        decode_json(text.encode(), object)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b'"\\ud800"', b"NaN", b"\xef\xbb\xbf{}"])
def test_what_is_not_json_is_one_kind_of_error(content: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        decode_json(content, object)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("a = " + "[" * 50_000, "nested"),
        ("a = " + nested(MAX_DEPTH + 1), "nested"),
        ("a." * 30_000 + "a = 1", "dots"),
        ("a = " + "9" * 5000, "64 bits"),
        ("a = 0x" + "f" * 5000, "64 bits"),
        ("# " + "x" * 100_000, "characters"),
    ],
)
def test_toml_beyond_its_limits_is_refused(text: str, named: str) -> None:
    with pytest.raises(DocumentError, match=named):
        decode_toml(text)


def test_a_document_is_a_regular_file_of_bounded_size(tmp_path: Path) -> None:
    (tmp_path / "ten").write_bytes(b"0123456789")
    assert read_document(tmp_path / "ten", 10) == b"0123456789"
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "ten", tmp_path / "pipe", Path("/dev/zero"), tmp_path, tmp_path / "gone"):
        with pytest.raises(OSError, match=r"bytes|regular file|directory"):
            read_document(path, 9)


@pytest.mark.parametrize(
    "setting", ["recipe.epochs=" + "[" * 50_000, "recipe.epochs=" + "9" * 5000, "x" * 100_000 + "=1"]
)
def test_a_setting_beyond_limits_is_refused(setting: str) -> None:
    with pytest.raises(ConfigError):
        load_preset("world-tiny", [setting])


def test_a_preset_beyond_limits_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "deep.toml"
    path.write_text("a = " + "[" * 50_000)
    with pytest.raises(ConfigError, match="nested"):
        load_preset(str(path))


def test_a_preset_may_come_from_an_editor_of_windows(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes("\ufeff[recipe]\r\nepochs = 3\r\n".encode())
    assert read_preset(str(path)) == {"recipe": {"epochs": 3}}
