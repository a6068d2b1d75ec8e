"""The manifest of a bundle: everything one model needs to be run rightly, readable by a person, validated when read."""

from pathlib import Path
from typing import Literal

import msgspec

from geodtr.runtime.errors import BundleError
from geodtr.runtime.files import write_bytes
from geodtr.runtime.names import Backend, Branch, Precision
from geodtr.runtime.spec import BranchSpec

FILE_NAME = "manifest.json"
SCHEMA = 1


class EngineEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One branch's engine: its boundary, and its file with size in bytes and SHA-256."""

    spec: BranchSpec
    file: str
    bytes: int
    sha256: str


class BackendEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who made the engine files, and the version that did. `onnx`: exported graphs that no backend has compiled yet,
    which ONNX Runtime runs as they are."""

    name: Backend | Literal["onnx"]
    version: str


class SourceEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The checkpoint that the engines were made from: its file's SHA-256, and in words and as SPEC what made it."""

    sha256: str
    origin: str
    trained_on: str | None = None


class CalibrationEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The images that INT8 ranges were taken from; the hashes cover their files' contents, in order.

    `kept_float` names, as branch/node, those of all `convolutions` that stayed in float32, so that the descriptors of
    the first images kept a cosine of `keep_cosine`.
    """

    data: str
    images: int
    ground_sha256: str
    aerial_sha256: str
    method: str
    keep_cosine: float
    convolutions: int
    kept_float: tuple[str, ...] = ()


class ParityEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One measured comparison. `reference` is PyTorch, or the precision of the bundle that stood for it; recall in
    shares of 1; `data_sha256` covers the images.
    """

    reference: str

    data: str
    data_sha256: str
    pairs: int
    reference_at_1: float
    at_1: float
    smallest_cosine: float
    passed: bool


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a bundle is. `embedding_id` names the space its descriptors live in: one checkpoint, one space."""

    schema: int = SCHEMA
    embedding_id: str
    precision: Precision
    backend: BackendEntry
    ground: EngineEntry
    aerial: EngineEntry
    source: SourceEntry
    calibration: CalibrationEntry | None = None
    parity: tuple[ParityEntry, ...] = ()

    def engine(self, branch: Branch) -> EngineEntry:
        return self.ground if branch == "ground" else self.aerial


def read_manifest(bundle: Path) -> Manifest:
    """Read and validate `bundle`/manifest.json. Raises BundleError naming the field that is wrong."""
    path = bundle / FILE_NAME
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise BundleError(
            f"{bundle} is not a bundle: it holds no {FILE_NAME}. "
            "Make one: geodtr-export build-engine CKPT --backend onnxruntime --precision fp32 --out BUNDLE"
        ) from None
    try:
        schema = msgspec.json.decode(content, type=dict[str, object]).get("schema")
        if schema != SCHEMA:
            raise BundleError(f"{path} has schema {schema}; this version reads {SCHEMA}. Build the bundle again.")
        return msgspec.json.decode(content, type=Manifest)
    except msgspec.DecodeError as error:
        raise BundleError(f"{path} is not a valid manifest: {error}. Build the bundle again.") from None


def write_manifest(bundle: Path, manifest: Manifest) -> None:
    """Write `bundle`/manifest.json durably, indented for people."""
    write_bytes(bundle / FILE_NAME, msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n")
