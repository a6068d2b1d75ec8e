"""A user's mistake is one clear message and exit code 2: no traceback, and nothing half-written."""

import json
import pickle
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Outcome, Trained
from PIL import Image

from geodtr.training.models.geodtr import BackboneConfig, GeoDTR, GeoDTRConfig
from geodtr.training.official import import_official

Cli = Callable[..., Outcome]


@pytest.fixture
def pairs(trained: Trained, tmp_path: Path) -> Path:
    """A small copy of the test set that a test may damage."""
    folder = tmp_path / "pairs"
    for branch in ("ground", "aerial"):
        (folder / branch).mkdir(parents=True)
        for path in trained.test_set.paths("ground" if branch == "ground" else "aerial")[:20]:
            shutil.copy(path, folder / branch / path.name)
    source = trained.test_set.pairs[0].ground.parents[1] / "pairs.csv"
    lines = source.read_text().splitlines(keepends=True)[:21]
    (folder / "pairs.csv").write_text("".join(lines))
    return folder


@pytest.fixture
def refused(cli: Cli, tmp_path: Path) -> Callable[..., str]:
    """Run a command that must be refused; returns its one message."""

    def call(*arguments: object) -> str:
        before = _tree(tmp_path)
        result = cli(*arguments)
        assert result.code == 2, result
        assert "Traceback" not in result.err
        assert _tree(tmp_path) == before, "something was left behind"
        return result.err

    return call


def test_a_missing_image_is_named(trained: Trained, pairs: Path, refused: Callable[..., str]) -> None:
    (pairs / "ground" / "000007.png").unlink()
    assert "000007.png does not exist" in refused("evaluate", trained.bundles["fp32"].path, "--data", f"pairs:{pairs}")


def test_a_truncated_image_is_named(trained: Trained, pairs: Path, tmp_path: Path, refused: Callable[..., str]) -> None:
    image = pairs / "aerial" / "000007.png"
    image.write_bytes(image.read_bytes()[:400])
    bundle, data = trained.bundles["fp32"].path, f"pairs:{pairs}"
    for command in (
        ("evaluate", bundle, "--data", data),
        ("parity", trained.onnx.path, bundle, "--data", data),
        ("gallery", "build", bundle, data, "--out", tmp_path / "g"),
        ("embed", bundle, pairs / "aerial", "--branch", "aerial", "--out", tmp_path / "d.npy"),
        ("train", "--preset", "world-tiny", "--data", data, "--out", tmp_path / "run"),
        ("build-engine", trained.onnx.path, "--precision", "int8", "--calibration", data, "--out", tmp_path / "b"),
    ):
        assert "000007.png cannot be decoded" in refused(*command)


def test_a_file_that_is_no_image_is_named(trained: Trained, tmp_path: Path, refused: Callable[..., str]) -> None:
    text = tmp_path / "notes.jpg"
    text.write_text("not an image")
    bundle = trained.bundles["fp32"].path
    assert "notes.jpg" in refused("embed", bundle, text, "--branch", "ground", "--out", tmp_path / "d.npy")


def test_a_16_bit_image_is_refused(trained: Trained, tmp_path: Path, refused: Callable[..., str]) -> None:
    deep = tmp_path / "deep.png"
    Image.fromarray(np.full((32, 128), 40_000, np.uint16)).save(deep)
    bundle = trained.bundles["fp32"].path
    assert "I;16" in refused("embed", bundle, deep, "--branch", "ground", "--out", tmp_path / "d.npy")


@pytest.mark.parametrize("name", ["deep.png", "deep.tif"])
def test_16_bits_a_channel_are_not_silently_cut_to_8(
    trained: Trained, tmp_path: Path, refused: Callable[..., str], name: str
) -> None:
    (tmp_path / name).write_bytes(_rgb16_png() if name.endswith("png") else _rgb16_tiff())
    bundle = trained.bundles["fp32"].path
    assert "16 bits" in refused("embed", bundle, tmp_path / name, "--branch", "ground", "--out", tmp_path / "d.npy")


def test_a_tile_that_is_not_square_is_named(trained: Trained, tmp_path: Path, refused: Callable[..., str]) -> None:
    Image.new("RGB", (64, 60)).save(tmp_path / "oblong.png")
    bundle = trained.bundles["fp32"].path
    message = refused("embed", bundle, tmp_path / "oblong.png", "--branch", "aerial", "--out", tmp_path / "d.npy")
    assert "oblong.png" in message
    assert "64x60" in message


def test_an_empty_folder_is_named(trained: Trained, tmp_path: Path, refused: Callable[..., str]) -> None:
    (tmp_path / "empty").mkdir()
    bundle = trained.bundles["fp32"].path
    assert "holds no images" in refused("gallery", "build", bundle, tmp_path / "empty", "--out", tmp_path / "g")
    assert "pairs.csv" in refused("evaluate", bundle, "--data", f"pairs:{tmp_path / 'empty'}")
    assert "manifest.json" in refused("inspect", tmp_path / "empty")
    assert "gallery.json" in refused("gallery", "info", tmp_path / "empty")


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("street,aerial\na,b\n", "street,aerial"),
        ("", "(none)"),
        ("ground,aerial,lat,lon\nground/000000.png,aerial/000000.png,north,8\n", "lat is 'north'"),
        ("ground,aerial,lat,lon\nground/000000.png,aerial/000000.png,91,8\n", "within -90 and 90"),
        ("ground,aerial\n\nground/000000.png\n", "line 3"),
        ("ground,aerial,lat,lon\nground/000000.png,aerial/000000.png,8,\n", "both lat and lon"),
        ("ground,aerial\nground/000000.png,aerial/000000.png\n", "at least two"),
        ("ground,aerial\n", "holds no pairs"),
    ],
)
def test_a_wrong_csv_is_named(
    trained: Trained, pairs: Path, refused: Callable[..., str], content: str, named: str
) -> None:
    (pairs / "pairs.csv").write_text(content)
    assert named in refused("evaluate", trained.bundles["fp32"].path, "--data", f"pairs:{pairs}")


@pytest.mark.parametrize("spec", ["somewhere", "vigor:somewhere", "pairs:nowhere", "pairs:"])
def test_a_wrong_spec_says_what_is_allowed(trained: Trained, refused: Callable[..., str], spec: str) -> None:
    message = refused("evaluate", trained.bundles["fp32"].path, "--data", spec)
    assert "KIND:PATH" in message or "not a folder" in message


def test_an_unknown_split_of_cvusa_lists_the_splits(
    trained: Trained, tmp_path: Path, refused: Callable[..., str]
) -> None:
    assert "train, val" in refused("evaluate", trained.bundles["fp32"].path, "--data", f"cvusa:{tmp_path}#test")


def test_a_checkpoint_that_carries_code_is_refused_and_not_run(tmp_path: Path, refused: Callable[..., str]) -> None:
    trap = tmp_path / "trap"

    class Payload:
        def __reduce__(self) -> tuple[object, tuple[Path]]:
            return (Path.touch, (trap,))

    torch.save({"model_state_dict": Payload()}, tmp_path / "evil.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Payload()))
    for name in ("evil.pth", "plain.pth"):
        message = refused("import-checkpoint", tmp_path / name, "--out", tmp_path / "m.safetensors")
        assert name in message
    assert not trap.exists()


def test_a_checkpoint_of_another_model_is_named(tmp_path: Path, refused: Callable[..., str]) -> None:
    other = tmp_path / "other.pth"
    torch.save({"model_state_dict": {"module.patch_embed.proj.weight": torch.zeros(8, 3, 4, 4)}}, other)
    assert "another model" in refused("import-checkpoint", other, "--out", tmp_path / "m.safetensors")
    torch.save({"epoch": 3}, other)
    assert "model_state_dict" in refused("import-checkpoint", other, "--out", tmp_path / "m.safetensors")
    other.write_bytes(b"PK\x03\x04 cut short")
    assert "other.pth" in refused("import-checkpoint", other, "--out", tmp_path / "m.safetensors")


def test_a_missing_and_a_strange_key_are_named(tmp_path: Path, refused: Callable[..., str]) -> None:
    weights = _small_official()
    del weights["ge_grd.b2"]
    weights["ge_grd.extra"] = torch.zeros(1)
    torch.save({"model_state_dict": weights}, tmp_path / "m.pth")
    message = refused("import-checkpoint", tmp_path / "m.pth", "--out", tmp_path / "m.safetensors")
    assert "ground.layout.b2 is missing" in message
    assert "ground.layout.extra is unexpected" in message


def test_parameters_that_contradict_the_weights_are_refused(tmp_path: Path, refused: Callable[..., str]) -> None:
    torch.save({"model_state_dict": _small_official()}, tmp_path / "m.pth")
    options = tmp_path / "options.json"
    asked = ("import-checkpoint", tmp_path / "m.pth", "--parameters", options, "--out", tmp_path / "m.safetensors")
    options.write_text(json.dumps({"n_des": 12}))
    assert "n_des = 12" in refused(*asked)
    options.write_text("{")
    assert "options.json" in refused(*asked)
    wrongs: list[dict[str, object]] = [
        {"TR_heads": 0},
        {"TR_heads": -1},
        {"dropout": "abc"},
        {"dropout": 2},
        {"n_des": []},
    ]
    for wrong in wrongs:
        options.write_text(json.dumps(wrong))
        assert next(iter(wrong)) in refused(*asked)
    options.unlink()
    assert "options.json cannot be read" in refused(*asked)


def test_a_bundle_with_one_byte_changed_is_not_run(
    trained: Trained, tmp_path: Path, refused: Callable[..., str]
) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(trained.bundles["fp32"].path, bundle)
    engine = bundle / "ground.onnx"
    content = bytearray(engine.read_bytes())
    content[len(content) // 2] ^= 1
    engine.write_bytes(content)
    image = trained.test_set.pairs[0].ground
    for command in (
        ("inspect", bundle),
        ("embed", bundle, image, "--branch", "ground", "--out", tmp_path / "d.npy"),
        ("evaluate", bundle, "--data", trained.test_set.name),
    ):
        assert "was altered" in refused(*command)
    engine.unlink()
    assert "ground.onnx is missing" in refused("inspect", bundle)


def test_a_corrupt_manifest_names_the_field(trained: Trained, tmp_path: Path, refused: Callable[..., str]) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(trained.bundles["fp32"].path, bundle)
    manifest = bundle / "manifest.json"
    document = json.loads(manifest.read_text())
    document["ground"]["spec"]["preprocessing"]["resize"] = "nearest"
    manifest.write_text(json.dumps(document))
    assert "resize" in refused("inspect", bundle)
    manifest.write_text(json.dumps({**document, "schema": 99}))
    assert "schema 99" in refused("inspect", bundle)
    manifest.write_text("{ not json")
    assert "manifest.json" in refused("inspect", bundle)
    document["ground"]["file"] = "../elsewhere.onnx"
    document["ground"]["spec"]["preprocessing"]["resize"] = "pillow-bilinear-antialias"
    manifest.write_text(json.dumps(document))
    assert "outside the bundle" in refused("inspect", bundle)


def test_int8_without_calibration_images_says_what_to_add(
    trained: Trained, tmp_path: Path, refused: Callable[..., str]
) -> None:
    message = refused("build-engine", trained.onnx.path, "--precision", "int8", "--out", tmp_path / "b")
    assert "--calibration" in message


def test_int8_that_no_convolution_allows_is_refused_rather_than_misnamed(
    trained: Trained, tmp_path: Path, refused: Callable[..., str]
) -> None:
    asked = ("build-engine", trained.onnx.path, "--precision", "int8", "--calibration", trained.test_set.name)
    assert "Lower --keep-cosine" in refused(*asked, "--keep-cosine", 1, "--images", 4, "--out", tmp_path / "b")


def test_two_builds_of_onnx_runtime_are_refused(
    trained: Trained, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from geodtr.runtime.engines import onnxruntime

    monkeypatch.setattr(onnxruntime, "version", lambda _name: "1.0")
    message = refused("evaluate", trained.bundles["fp32"].path, "--data", trained.test_set.name)
    assert "onnxruntime and onnxruntime-gpu are both installed" in message


def test_a_model_whose_weights_are_not_numbers_is_refused(
    trained: Trained, tmp_path: Path, refused: Callable[..., str]
) -> None:
    from geodtr.training.checkpoint import load_checkpoint, save_checkpoint

    model = load_checkpoint(trained.checkpoint).model
    with torch.no_grad():
        model.ground.layout.w1[0, 0, 0] = float("nan")
    save_checkpoint(tmp_path / "nan.safetensors", model, "broken")
    message = refused("evaluate", tmp_path / "nan.safetensors", "--data", trained.test_set.name)
    assert "ground.layout.w1 holds values that are not finite" in message


def test_a_checkpoint_of_a_later_version_is_refused(
    trained: Trained, tmp_path: Path, refused: Callable[..., str]
) -> None:
    for old, new in ((b'"schema":1', b'"schema":9'), (b'"model":"geodtr"', b'"model":"safamo"')):
        path = tmp_path / "later.safetensors"
        escaped_old, escaped_new = (text.replace(b'"', b'\\"') for text in (old, new))
        path.write_bytes(trained.checkpoint.read_bytes().replace(escaped_old, escaped_new))
        assert "does not know" in refused("evaluate", path, "--data", trained.test_set.name)


def test_engines_are_not_built_from_engines(trained: Trained, tmp_path: Path, refused: Callable[..., str]) -> None:
    message = refused("build-engine", trained.bundles["fp16"].path, "--precision", "fp32", "--out", tmp_path / "b")
    assert "built from float32" in message


def test_an_output_that_exists_is_left_alone(trained: Trained, tmp_path: Path, refused: Callable[..., str]) -> None:
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "mine.txt").write_text("precious")
    bundle, data, image = trained.bundles["fp32"].path, trained.test_set.name, trained.test_set.pairs[0].ground
    for command in (
        ("world", taken, "--pairs", 1),
        ("train", "--preset", "world-tiny", "--data", data, "--out", taken),
        ("export", trained.checkpoint, "--out", taken),
        ("build-engine", trained.onnx.path, "--out", taken),
        ("gallery", "build", bundle, data, "--out", taken),
        ("demo", "--out", taken),
        ("embed", bundle, image, "--branch", "ground", "--out", taken / "mine.txt"),
    ):
        assert "exists" in refused(*command)
    assert (taken / "mine.txt").read_text() == "precious"


@pytest.mark.parametrize(
    "arguments",
    [
        ("frobnicate",),
        ("train", "--preset", "world-huge", "--data", "pairs:x", "--out", "y"),
        ("world", "w", "--pairs", "0"),
        ("world", "w", "--pairs", "1", "--size", "big"),
        ("world", "w", "--pairs", "1", "--region", "moon"),
        ("build-engine", "c", "--backend", "abacus", "--out", "b"),
        ("build-engine", "c", "--precision", "fp4", "--out", "b"),
        ("evaluate", "nowhere", "--data", "pairs:nowhere"),
        ("inspect", "nowhere"),
    ],
)
def test_wrong_usage_exits_with_2(
    refused: Callable[..., str], arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert refused(*arguments)


def test_bundles_of_different_models_are_not_compared(
    trained: Trained, tmp_path: Path, refused: Callable[..., str]
) -> None:
    from geodtr.export.engine_builder import export_checkpoint
    from geodtr.training.checkpoint import load_checkpoint, save_checkpoint

    model = load_checkpoint(trained.checkpoint).model
    save_checkpoint(tmp_path / "other.safetensors", model, "another training")
    export_checkpoint(tmp_path / "other.safetensors", tmp_path / "other")
    asked = ("parity", trained.checkpoint, tmp_path / "other", "--data", trained.test_set.name)
    assert "another checkpoint" in refused(*asked)


def test_a_folder_whose_name_holds_a_hash_is_still_a_data_set(trained: Trained, pairs: Path, cli: Cli) -> None:
    renamed = pairs.rename(pairs.with_name("my #1 [set]"))
    result = cli("evaluate", trained.bundles["fp32"].path, "--data", f"pairs:{renamed}")
    assert result.code == 0, result.err
    assert "my #1 [set]" in result.out


def _rgb16_png() -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + bytes(64 * 3 * 2) for _ in range(32))
    header = struct.pack(">IIBBBBB", 64, 32, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def _rgb16_tiff() -> bytes:
    """An uncompressed little-endian TIFF of 64 x 32 pixels, three channels of 16 bits."""
    pixels = bytes(64 * 32 * 6)
    tags = [(256, 64), (257, 32), (258, 0), (259, 1), (262, 2), (273, 0), (277, 3), (278, 32), (279, len(pixels))]
    bits_at = 8 + 2 + 12 * len(tags) + 4
    values = {258: bits_at, 273: bits_at + 6}
    entries = b"".join(
        struct.pack(
            "<HHII", tag, 3 if tag in (258, 259, 262, 277) else 4, 3 if tag == 258 else 1, values.get(tag, value)
        )
        for tag, value in tags
    )
    start = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)
    return start + struct.pack("<HHH", 16, 16, 16) + pixels


def _tree(root: Path) -> set[tuple[str, bytes]]:
    """Every file below `root` with its content."""
    return {(str(path), path.read_bytes() if path.is_file() else b"") for path in root.rglob("*")}


def _small_official() -> dict[str, torch.Tensor]:
    """Weights in the release's names, of official input sizes but thin layers."""
    from official import official_names

    from geodtr.training.official import AERIAL_POLAR, GROUND

    backbone = BackboneConfig(widths=(4, 4, 4, 4), blocks=(1, 1, 1, 1))
    return official_names(GeoDTR(GeoDTRConfig(backbone=backbone, feed_forward=8), GROUND, AERIAL_POLAR).state_dict())


def test_the_small_official_file_used_here_is_importable(tmp_path: Path) -> None:
    torch.save({"model_state_dict": _small_official()}, tmp_path / "m.pth")
    assert import_official(tmp_path / "m.pth").config.descriptors == 8
