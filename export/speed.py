"""How many times as fast engines are as others, in one definition: the search for blocks ranks by it, and
`--require-faster` asks for it.

Both branches are called with a batch of noise in interleaved rounds (see timing). Each has its ratio, and both
together, a batch of each, have one.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from geodtr.export.backends.base import Builder
from geodtr.export.timing import ROUNDS, time_pairs
from geodtr.runtime.bundle import Bundle
from geodtr.runtime.engines.base import EngineFiles, EngineOptions
from geodtr.runtime.engines.registry import open_embedders
from geodtr.runtime.errors import GateNotMet
from geodtr.runtime.manifest import Manifest, SpeedEntry
from geodtr.runtime.names import BRANCHES
from geodtr.runtime.progress import Track, untracked
from geodtr.runtime.spec import EmbedderPair

BATCH = 1
"""What a vehicle embeds at a time; every engine takes it."""
_LEAVING_NOTHING = EngineOptions(keep_compiled=False)


def times_as_fast(
    pairs: Sequence[EmbedderPair],
    base: EmbedderPair,
    batch: int = BATCH,
    *,
    rounds: int = ROUNDS,
    track: Track = untracked,
) -> list[SpeedEntry]:
    """The speed of each of `pairs` relative to `base`, at batch size `batch`."""
    first, *timings = time_pairs((base, *pairs), batch, rounds=rounds, track=track)
    return [
        SpeedEntry(batch=batch, **{what: timing.ratio(first[what]) for what, timing in pair.items()})
        for pair in timings
    ]


def measure_speed(
    built: Bundle, exported: Bundle, builder: Builder, scratch: Path, batch: int = BATCH, *, track: Track = untracked
) -> SpeedEntry:
    """The engines of `built` beside those that `builder` makes of the float32 graphs of `exported`, in `scratch`."""
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        float32 = list[EngineFiles]()
        for branch in BRANCHES:
            entry = exported.manifest.engine(branch)
            graph = exported.path / entry.file
            inside = Path(folder) / branch  # what a backend keeps beside a bundle goes with the rest
            inside.mkdir()
            compiled = builder.compile(graph, entry.spec, "fp32", inside, track=track)
            float32.append(EngineFiles(entry.spec, "fp32", graph, None if compiled is None else compiled.file))
        base = EmbedderPair(*open_embedders(float32, built.manifest.backend, _LEAVING_NOTHING))
        (found,) = times_as_fast([built.embedders(_LEAVING_NOTHING)], base, batch, track=track)
    return found


def check_faster(speed: SpeedEntry, manifest: Manifest) -> None:
    """Raise GateNotMet unless each branch is faster than float32; one that is float32 itself need not be."""
    ratios = [speed.branch(branch).median for branch in BRANCHES if manifest.precision_of(branch) != "fp32"]
    if not min(ratios) > 1:
        each = (
            f"ground {speed.ground.median:.2f} times as fast, aerial {speed.aerial.median:.2f}, at batch {speed.batch}"
        )
        raise GateNotMet(
            f"The {manifest.precision} engine is not faster than fp32 on this machine: {each}. Nothing was written. "
            "Build fp32, or leave --require-faster out."
        )
