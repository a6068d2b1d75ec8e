"""The command that calibrates."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from geodtr.cli.console import messages, track, warn
from geodtr.cli.dataclass_options import with_options
from geodtr.cli.options import argument, flag, out_option
from geodtr.export.build.precisions import Calibration


@with_options({None: (Calibration,)}, leave_out=("data", "ranges"))
def calibrate(
    source: Annotated[Path, argument("CKPT|BUNDLE", "A checkpoint, or an exported bundle.")],
    data: Annotated[str, flag("--data SPEC|FOLDER", "A data set, or a folder with ground/ and aerial/.")],
    out: Annotated[Path, out_option("Ranges file: reused when all of it matches, else measured again.")],
    *,
    given: Mapping[str, Any],
) -> None:
    """Measure the ranges that activations take on images, for `build-engine --ranges`."""
    from geodtr.export.model import check_source

    calibration = Calibration(data, **given)
    check_source(source)
    from geodtr.calibration.ranges import calibrate as measure
    from geodtr.export.build.source import float32_bundle
    from geodtr.export.calibration_pool import open_pool

    pool = open_pool(calibration.data, warn)
    with float32_bundle(source, track) as exported:
        ranges = measure(exported, pool, calibration.range_options, out, track=track)
    if ranges.doubt is not None:
        warn(ranges.doubt)
    if ranges.reason is None:
        messages.print(f"{out} holds just these ranges: nothing to do.")
    else:
        messages.print(
            f"Wrote {out}: {len(ranges.ranges.ground.ranges)} tensors of ground, "
            f"{len(ranges.ranges.aerial.ranges)} of aerial, because {ranges.reason}.",
        )
