"""The manifest of a bundle: everything one model needs to be run rightly, readable by a person, validated when read."""

from pathlib import Path
from typing import Literal

import msgspec

from geodtr.runtime.errors import BundleError
from geodtr.runtime.files import write_bytes
from geodtr.runtime.machine import Machine
from geodtr.runtime.names import Backend, Branch, Dialect, Hardware, Precision, Provider, Verdict
from geodtr.runtime.spec import BranchSpec

FILE_NAME = "manifest.json"
SCHEMA = 3


class FileEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A file of the bundle, with its size in bytes and its SHA-256."""

    file: str
    bytes: int
    sha256: str


class CompiledEntry(FileEntry, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a backend made of a graph for one kind of machine; `layers` counts them by the precision they really got,
    where the backend tells. `wider` names the operators of the graph that it computes in a wider type than asked for.
    """

    layers: dict[str, int] = {}
    wider: tuple[str, ...] = ()


class EngineEntry(FileEntry, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One branch's engine: its boundary, its typed ONNX graph, and the form that the backend compiled it to, if any."""

    spec: BranchSpec
    compiled: CompiledEntry | None = None

    @property
    def files(self) -> tuple[FileEntry, ...]:
        return (self,) if self.compiled is None else (self, self.compiled)


class TensorRtEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a loader of TensorRT plans must know before it touches one.

    Batches: of the optimisation profile; fewer rows are padded, more are cut. `hardware`: the GPUs that the plan may
    run on. `dla_core`: the accelerator that runs what it can. `stripped`: the plan holds no weights, the graph beside
    it does. `refittable`: it takes another model's. `workspace` (in MiB) and `optimisation_level` serve to build it
    again. `expose_reductions`: reductions are outputs of the network, to keep TensorRT from fusing across them.
    `compute_capabilities`: of the GPUs that a plan of TensorRT-RTX is for, like "8.9".
    """

    min_batch: int
    opt_batch: int
    max_batch: int
    version_compatible: bool = False
    hardware: Hardware = "same-gpu"
    dla_core: int | None = None
    stripped: bool = False
    refittable: bool = False
    workspace: int | None = None
    optimisation_level: int | None = None
    expose_reductions: bool = False
    compute_capabilities: tuple[str, ...] = ()


def runs_by(backend: Backend, provider: Provider) -> str:
    """The library, and its provider where it is not the CPU's."""
    return backend if provider == "cpu" else f"{backend} {provider}"


class BackendEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who made the engine files, and the version that did. `onnx`: exported graphs that no backend has compiled yet,
    which ONNX Runtime runs as they are. `machine` is the kind that compiled files are for; `tensorrt` how plans were.
    `executed`: the engines ran where they were built, and passed their checks; else the graphs alone did.
    """

    name: Backend | Literal["onnx"]
    version: str
    provider: Provider = "cpu"
    machine: Machine | None = None
    tensorrt: TensorRtEntry | None = None
    executed: bool = True

    @property
    def runs_by(self) -> str:
        """What computes, in words: the library, and its provider where it is not the CPU's."""
        return runs_by("onnxruntime" if self.name == "onnx" else self.name, self.provider)

    @property
    def targets(self) -> str | None:
        """The GPUs that engines of TensorRT-RTX are for, in words, and whether they have run."""
        if self.tensorrt is None or not self.tensorrt.compute_capabilities:
            return None
        gpus = f"for GPUs of compute capability {', '.join(self.tensorrt.compute_capabilities)}"
        if self.executed:
            return gpus
        return f"{gpus}; built, not executed: without such a GPU at hand its graphs alone were checked"


class SourceEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The checkpoint that the engines were made from: its file's SHA-256, and in words and as SPEC what made it.

    `raw_tiles`: the side of the square tiles that the aerial graph was made to unroll itself, if it was.
    """

    sha256: str
    origin: str
    trained_on: str | None = None
    raw_tiles: int | None = None


class CalibrationEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The images that ranges were taken from, and how (`seed`: of the draw, where the choice is one); the hashes cover
    their files' contents, in order.
    """

    data: str
    images: int
    ground_sha256: str
    aerial_sha256: str
    choice: str
    seed: int = 0
    method: str


class SensitivityEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One block quantised alone: how far it turns descriptors, which hits at rank 1 go and come, and how many times as
    fast as with none quantised both branches together are then.
    """

    block: str
    operators: int
    mean_cosine: float
    smallest_cosine: float
    lost: int
    gained: int
    speed: float


class TrialEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A choice of quantised blocks, and its change of hits at rank 1 on `queries`: not `complete` where it was given up
    early. `low` and `high` bound the drop in shares of 1 with 95 % confidence; `speed` is by that of no block
    quantised, where timed.
    """

    blocks: tuple[str, ...]
    queries: int
    complete: bool
    lost: int
    gained: int
    low: float
    high: float
    speed: float | None = None


class SearchEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How blocks were chosen by measured recall: `tolerance` in points of R@1, on which pairs, with what result.

    `trials` holds every choice that was measured, the chosen one among them; `machine` is where speeds were taken, with
    `batch` images a call. `accepted`: the pairs do not decide whether the chosen one is within the tolerance, its
    measured drop is, and the user accepted that.
    """

    tolerance: float
    data: str
    data_sha256: str
    machine: Machine
    batch: int
    chosen: TrialEntry
    sensitivity: tuple[SensitivityEntry, ...]
    trials: tuple[TrialEntry, ...]
    accepted: bool = False


class QuantisationEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What of the graphs is quantised, for which target, and why not more; `rest` is the precision of all that is not.

    `kept_float` names, as branch/node, those of all `operators` that could be quantised and were not: with
    `keep_cosine`, so that the descriptors of the first calibration images kept that cosine; with `search`, so that
    recall held. `argmax_flips`: by branch, the share of positions on those images where another channel wins than in
    float32.
    """

    dialect: Dialect
    calibration: CalibrationEntry
    operators: int
    rest: Precision = "fp32"
    kept_float: tuple[str, ...] = ()
    keep_cosine: float | None = None
    search: SearchEntry | None = None
    argmax_flips: dict[str, float] = {}


class Ratio(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How many times as fast one engine is as another: median and range over interleaved rounds.

    The range over n rounds is a confidence interval of the median: it holds the true one with probability 1 - 2 / 2^n
    whatever the distribution (order statistics), 94 % for 5 rounds, 99.8 % for 10.
    """

    median: float
    lowest: float
    highest: float

    @property
    def slower(self) -> bool:
        """Whether the whole interval is below 1: slower in every round."""
        return self.highest < 1


class SpeedEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Each branch and `both` together (a batch of each) against other engines of the same checkpoint and backend,
    called with `batch` images on one machine. A bundle's own is against float32, where it was built.
    """

    batch: int
    ground: Ratio
    aerial: Ratio
    both: Ratio

    def branch(self, branch: Branch) -> Ratio:
        return self.ground if branch == "ground" else self.aerial


class Speed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Images per second through the network alone: median and range over the rounds."""

    median: float
    slowest: float
    fastest: float


class TrialSpeed(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One branch, or both together, by a backend that was tried: `times_kept` is how many times as fast as the kept
    backend it is.
    """

    images_per_second: Speed
    times_kept: Ratio


class BackendTrialEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One backend that `--backend auto` considered. It was timed, or `reason` says why not; `both` is a batch of each
    branch, one after the other. `version` is None where the backend is not installed. `tied`: its speed cannot be told
    from the kept backend's.
    """

    name: Backend
    provider: Provider = "cpu"
    version: str | None = None
    ground: TrialSpeed | None = None
    aerial: TrialSpeed | None = None
    both: TrialSpeed | None = None
    tied: bool = False
    reason: str | None = None

    @property
    def runs_by(self) -> str:
        return runs_by(self.name, self.provider)

    @property
    def speeds(self) -> dict[str, TrialSpeed]:
        """By `ground`, `aerial` and `both`; empty where the backend was not timed."""
        each = {"ground": self.ground, "aerial": self.aerial, "both": self.both}
        return {name: speed for name, speed in each.items() if speed is not None}


class BackendChoiceEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How `--backend auto` chose the bundle's backend: every backend in order of preference, timed in interleaved
    `rounds` with `batch` images per call on `machine`.
    """

    batch: int
    rounds: int
    machine: Machine
    trials: tuple[BackendTrialEntry, ...]


class ParityEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One measured comparison and its verdict. `reference` is PyTorch, or the name of the bundle that stood for it;
    `data_sha256` covers the images and which belong together, `machine` is where it was run.

    Recalls and drops are shares of 1. `drop` is R@1's in the worst way of searching, `low` to `high` its 95 % interval,
    `max_drop` what was allowed; `certain`: the whole interval is within it, None where no drop is allowed. `accepted`:
    the pairs left recall undecided, the measured drop is within `max_drop`, and the user accepted that.
    `pairs_to_decide`: about how many pairs would decide it. `reasons`: why it did not pass, what the pairs prove, and
    the command to run next, in sentences.
    """

    reference: str
    data: str
    data_sha256: str
    pairs: int
    reference_at_1: float
    at_1: float
    drop: float
    low: float
    high: float
    max_drop: float
    certain: bool | None
    smallest_cosine: float
    machine: Machine
    verdict: Verdict
    reasons: tuple[str, ...]
    accepted: bool = False
    pairs_to_decide: int | None = None


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a bundle is. `embedding_id` names the space its descriptors live in: one checkpoint, one space."""

    schema: int = SCHEMA
    embedding_id: str
    precision: Precision
    backend: BackendEntry
    ground: EngineEntry
    aerial: EngineEntry
    source: SourceEntry
    quantisation: QuantisationEntry | None = None
    speed: SpeedEntry | None = None
    backend_choice: BackendChoiceEntry | None = None
    parity: tuple[ParityEntry, ...] = ()

    def engine(self, branch: Branch) -> EngineEntry:
        return self.ground if branch == "ground" else self.aerial

    def precision_of(self, branch: Branch) -> Precision:
        """A branch of which a search chose no block is what the rest is, though the bundle is mixed."""
        made = self.quantisation
        if made is None or made.search is None:
            return self.precision
        return "mixed" if any(block.startswith(f"{branch}/") for block in made.search.chosen.blocks) else made.rest


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
    except OSError as error:
        raise BundleError(f"{path} cannot be read ({error.strerror}). Copy the bundle again.") from None
    again = f"Copy the bundle again, or build it anew; geodtr-export doctor {bundle} says by which command."
    try:
        schema = msgspec.json.decode(content, type=dict[str, object]).get("schema")
        if schema != SCHEMA:
            raise BundleError(f"{path} has schema {schema}; this version reads {SCHEMA}. {again}")
        return msgspec.json.decode(content, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BundleError(f"{path} is not a valid manifest: {error}. {again}") from None


def write_manifest(bundle: Path, manifest: Manifest) -> None:
    """Write `bundle`/manifest.json durably, indented for people."""
    write_bytes(bundle / FILE_NAME, msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n")
