"""The manifest itself: the document, and how it is read, validated and written."""

from collections.abc import Iterable
from pathlib import Path
from shlex import quote

import msgspec

from geodtr import __version__
from geodtr.runtime.arguments import check_argument
from geodtr.runtime.errors import BundleError
from geodtr.runtime.files import check_regular, write_bytes
from geodtr.runtime.files.documents import decode_json, read_document
from geodtr.runtime.files.own_kinds import CURRENT, MANIFEST, own_kind
from geodtr.runtime.installation import install_hint
from geodtr.runtime.manifest.engines import BackendEntry, EngineEntry, FileEntry, ProjectionEntry, SourceEntry
from geodtr.runtime.manifest.evidence import BackendChoiceEntry, ParityEntry, QuantisationEntry, SpeedEntry
from geodtr.runtime.names import BRANCHES, Branch, Precision
from geodtr.runtime.spec import EmbeddingId

FILE_NAME = MANIFEST
SCHEMA = 6
_READ = (3, 4, 5, SCHEMA)
"""Schema 3 records no command and no version of its writer; before 5, branches share no weights, and before 6 no
projection is trained.
"""


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a bundle is. `embedding_id` names the space its descriptors live in: one checkpoint, one space; and another
    one with each `projection`.

    `command`: the command line that built it, quoted for a shell. `writer`: the version of geodtr-export that wrote it.
    """

    schema: int = SCHEMA
    writer: str | None = None
    command: str | None = None
    embedding_id: EmbeddingId
    precision: Precision
    backend: BackendEntry
    ground: EngineEntry
    aerial: EngineEntry
    source: SourceEntry
    projection: ProjectionEntry | None = None
    quantisation: QuantisationEntry | None = None
    speed: SpeedEntry | None = None
    backend_choice: BackendChoiceEntry | None = None
    parity: tuple[ParityEntry, ...] = ()

    def engine(self, branch: Branch) -> EngineEntry:
        check_argument("branch", branch, Branch)
        return self.ground if branch == "ground" else self.aerial

    @property
    def graph_files(self) -> tuple[FileEntry, ...]:
        """The typed graphs of both branches; what they share is there once."""
        return _once(entry for branch in BRANCHES for entry in self.engine(branch).graph_files)

    @property
    def files(self) -> tuple[FileEntry, ...]:
        """All files of the bundle but the manifest; what the branches share is there once."""
        return _once(entry for branch in BRANCHES for entry in self.engine(branch).files)

    def precision_of(self, branch: Branch) -> Precision:
        """The precision of one branch: in a mixed bundle, the fallback precision if none of its blocks is quantised."""
        entry = self.quantisation
        if entry is None or entry.search is None:
            return self.precision
        return "mixed" if any(block.startswith(f"{branch}/") for block in entry.search.chosen.blocks) else entry.rest


def _once(entries: Iterable[FileEntry]) -> tuple[FileEntry, ...]:
    return tuple({(entry.file, entry.sha256): entry for entry in entries}.values())


def read_manifest(bundle: Path) -> Manifest:
    """Read and validate `bundle`/manifest.json. Raises BundleError naming the field that is wrong."""
    path = bundle / FILE_NAME
    check_regular(path, BundleError)
    try:
        content = read_document(path)
    except (FileNotFoundError, NotADirectoryError):
        fault = f"it holds no {FILE_NAME}" if bundle.exists() else "there is no such folder"
        raise BundleError(f"{bundle} is not a bundle: {fault}. {_remedy(bundle)}") from None
    except OSError as error:
        raise BundleError(f"{path} cannot be read ({error.strerror}). Copy the bundle again.") from None
    try:
        head = decode_json(content, dict[str, object])
        schema = head.get("schema")
        if isinstance(schema, int) and schema > SCHEMA:
            raise NewerManifest(path, schema, head.get("writer"))
        if schema not in _READ:
            raise UnreadManifest(bundle, f"{path} has schema {schema}; this version reads {_READ[0]} to {_READ[-1]}.")
        return decode_json(content, Manifest)
    except msgspec.DecodeError as error:
        raise UnreadManifest(bundle, f"{path} is not a valid manifest: {error}.") from None


def _remedy(path: Path) -> str:
    """What to do where `path` is no bundle."""
    kind = own_kind(path)
    if kind == "gallery":
        return "It is a gallery: name the bundle that it was built with."
    if kind == "installation":
        return f"Archives are installed there: name {path / CURRENT / 'bundle'}"
    source = quote(str(path)) if kind in ("run", "checkpoint") else "CKPT"
    return f"Make one: geodtr-export build-engine {source} --backend onnxruntime --precision fp32 --out BUNDLE"


class UnreadManifest(BundleError):
    """The manifest has an earlier schema than this version reads, or is invalid: `problem`."""

    def __init__(self, bundle: Path, problem: str) -> None:
        self.problem = problem
        super().__init__(
            f"{problem} Copy the bundle again, or build it again; geodtr-export doctor {bundle} prints the command."
        )


class NewerManifest(BundleError):
    """The manifest has a later schema than this version reads.

    `problem` names both versions; `remedy` is the command that upgrades.
    """

    def __init__(self, path: Path, schema: int, writer: object) -> None:
        by = f"geodtr-export {writer}" if writer else "a newer geodtr-export"
        self.problem = (
            f"{path} has schema {schema}, written by {by}; this is geodtr-export {__version__}, which reads schemas up "
            f"to {SCHEMA}. Update it{f' to {writer} or later' if writer else ''}."
        )
        self.remedy = install_hint(upgrade=True)
        super().__init__(f"{self.problem} For example: {self.remedy}")


def write_manifest(bundle: Path, manifest: Manifest) -> None:
    """Write `bundle`/manifest.json durably, indented for people, in the newest schema."""
    current = msgspec.structs.replace(manifest, schema=SCHEMA, writer=__version__)
    write_bytes(bundle / FILE_NAME, msgspec.json.format(msgspec.json.encode(current), indent=2) + b"\n")
