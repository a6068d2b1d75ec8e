"""What a manifest keeps of measurements: calibration and search, speed, the choice of the backend, parity."""

import msgspec

from geodtr.runtime.machine import Machine
from geodtr.runtime.manifest.engines import runs_by
from geodtr.runtime.names import Backend, Branch, Dialect, Precision, Provider, Verdict


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
    """A choice of quantised blocks, and its change of hits at rank 1 on `queries`; not `complete` if it stopped early.

    `low` and `high` are the 95 % confidence bounds of the drop, as fractions of 1. `speed` is relative to no quantised
    block; None where it was not timed.
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

    `trials` holds every choice that was measured, the chosen one among them; `machine` is where speeds were measured,
    at batch size `batch`. `accepted`: the measured drop of the chosen one is within the tolerance, the pairs are too
    few to prove that, and the user accepted it.
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
    """Which parts of the graphs are quantised, for which target, and why not more; `rest` is the fallback precision.

    `kept_float` names, as branch/node, the quantisable `operators` that stayed in floating point: with `keep_cosine`,
    so that the descriptors of the first calibration images keep that cosine; with `search`, so that recall holds.
    `argmax_flips`: by branch, the share of positions on those images where another channel wins than in float32.
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
    for any distribution (order statistics), 94 % for 5 rounds, 99.8 % for 10.
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
    """One backend that `--backend auto` considered. It was timed, or `reason` states why not; `both` is a batch of each
    branch, one after the other. `version` is None where the backend is not installed. `tied`: its speed does not differ
    significantly from the selected backend's.
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
