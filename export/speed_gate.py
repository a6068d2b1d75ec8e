"""Is an engine below float32 worth having? Measured beside float32 engines of the same backend when it is built."""

import tempfile
from pathlib import Path

from geodtr.export.build.builder import Builder
from geodtr.export.timing import noise, time_embedders
from geodtr.runtime.bundle import Bundle
from geodtr.runtime.engines.opening import AS_IT_LIKES, EngineFiles, open_embedders
from geodtr.runtime.errors import GateNotMet
from geodtr.runtime.manifest import Ratio, SpeedEntry
from geodtr.runtime.names import BRANCHES, Branch, Precision
from geodtr.runtime.progress import Track, untracked

BATCH = 1
"""What a vehicle embeds at a time; every engine takes it."""


def measure_speed(
    built: Bundle, exported: Bundle, builder: Builder, scratch: Path, *, track: Track = untracked
) -> SpeedEntry:
    """How many times as fast the engines of `built` are as those that `builder` makes of the float32 graphs of
    `exported`, in `scratch`, in interleaved rounds.
    """
    ratios: dict[Branch, Ratio] = {}
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        for branch in BRANCHES:
            entry = exported.manifest.engine(branch)
            graph = exported.path / entry.file
            inside = Path(folder) / branch  # what a backend keeps beside a bundle goes with the rest
            inside.mkdir()
            compiled = builder.compile(graph, entry.spec, "fp32", inside, track=track)
            files = EngineFiles(entry.spec, "fp32", graph, None if compiled is None else compiled.file)
            (float32,) = open_embedders([files], built.manifest.backend, AS_IT_LIKES)
            images = noise(float32, BATCH)
            own, base = time_embedders([built.embedder(branch), float32], [images, images], track=track)
            ratios[branch] = own.ratio(base)
    return SpeedEntry(batch=BATCH, ground=ratios["ground"], aerial=ratios["aerial"])


def check_faster(speed: SpeedEntry, precision: Precision) -> None:
    """Raise GateNotMet unless both branches are faster than float32."""
    if not speed.faster:
        each = (
            f"ground {speed.ground.median:.2f} times as fast, aerial {speed.aerial.median:.2f}, at batch {speed.batch}"
        )
        raise GateNotMet(
            f"The {precision} engine is not faster than fp32 on this machine: {each}. Nothing was written. Build fp32, "
            "or leave --require-faster out."
        )
