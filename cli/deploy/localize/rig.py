"""The option of `localize` for a rig of cameras, and the opening of its sources."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geodtr.cli.console import messages
from geodtr.export.options import option
from geodtr.runtime.errors import ConfigError

if TYPE_CHECKING:
    from geodtr.runtime.images.frames import Frames
    from geodtr.runtime.images.rig import Rig


@dataclass(frozen=True, slots=True)
class RigOptions:
    """What the group of options holds."""

    rig: str | None = option(
        None,
        "Join images of a rig into panoramas: a camchain of Kalibr, or cameras with angles. IMAGES are a folder or a "
        "video for each camera, in its order.",
        "FILE",
    )


def opened_frames(
    places: Sequence[str], every: int, limit: int | None, bundle: Path, given: Mapping[str, Any]
) -> "Frames":
    """The frames of IMAGES; with --rig, panoramas of the frames of each moment."""
    from geodtr.runtime.images.frames import open_frames
    from geodtr.runtime.images.rig import open_rig_frames

    if "rig" not in given:
        return open_frames(places, every=every, limit=limit)
    rig = _rig_of(Path(given["rig"]), bundle)
    frames = open_rig_frames(places, rig, every=every, limit=limit)
    if rig.missing:
        messages.print(f"{rig.name}: {1 - rig.missing:.0%} of the panorama are seen{rig.gaps}")
    return frames


def _rig_of(file: Path, bundle: Path) -> "Rig":
    from geodtr.runtime.images.rig import read_rig
    from geodtr.runtime.manifest import read_manifest

    how = read_manifest(bundle).ground.spec.preprocessing
    if how.imagery.projection in ("perspective", "nadir"):
        raise ConfigError(f"--rig joins panoramas, and the model was trained on {how.imagery.projection} images.")
    return read_rig(file, how.imagery.aspect or how.width / how.height, how.width)
