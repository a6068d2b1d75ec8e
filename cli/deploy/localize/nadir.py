"""The options of `localize` for frames that look straight down."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from geodtr.cli.deploy.image_options import camera_model_of, intake_of
from geodtr.cli.options import numbers_of
from geodtr.export.options import from_given, option

if TYPE_CHECKING:
    from geodtr.runtime.images.altitudes import Altitudes
    from geodtr.runtime.localization.nadir.hypotheses import NadirOptions
    from geodtr.runtime.localization.nadir.refine import RefineOptions

View = Literal["ground", "nadir"]


@dataclass(frozen=True, slots=True)
class NadirArguments:
    """What the group of options holds; bounds are checked by `NadirOptions` and `RefineOptions`."""

    altitude: str | None = option(
        None, "Above the ground: of all frames, or a CSV with the columns file and altitude.", "METRES|FILE.csv"
    )
    fov: float | None = option(None, "Angle of the frame's width.", "DEGREES")
    """As of street-level images, whose option it is."""
    frame_metres: str | None = option(
        None, "Range of the frame's width on the ground, where the altitude is unknown.", "LOW,HIGH"
    )
    size_error: float = option(0.2, "Uncertainty of a size that the altitude gives.", "SHARE")
    ground_sizes: int = option(3, "Ground sizes to search.", "N")
    rotations: int = option(16, "Rotations to search.", "N")
    heading: float | None = option(
        None, "Where the frame's upper edge points; no rotation is searched.", "DEGREES", shown="unknown"
    )
    tile_metres: float | None = option(None, "Side of the gallery's tiles.", "METRES", shown="as the gallery has it")
    refine: bool = option(False, "Fix a position in metres on the map around the best tiles, or refuse.")
    refine_places: int = option(8, "Places to try with --refine.", "N")
    min_inliers: int = option(20, "Matches that must agree.", "N")


_REFINING = {"refine_places": "places", "min_inliers": "min_inliers"}


def taking_of(view: View, given: Mapping[str, Any]) -> dict[str, Any]:
    """How images were taken, as arguments of Localizer.open: what is known of street-level images, or of frames that
    look straight down.
    """
    nadir, refine = nadir_of(view, given)
    return {"intake": intake_of(given)} if nadir is None else {"nadir": nadir, "refine": refine}


def nadir_of(view: View, given: Mapping[str, Any]) -> "tuple[NadirOptions | None, RefineOptions | None]":
    """What --view nadir asks for: how frames are searched, and the second stage."""
    from geodtr.runtime.localization.nadir.hypotheses import NadirOptions
    from geodtr.runtime.localization.nadir.refine import RefineOptions

    if view != "nadir":
        return None, None
    options: NadirArguments = from_given(NadirArguments, given)
    widths = options.frame_metres
    nadir = NadirOptions(
        camera=camera_model_of(given.get("undistort")),
        altitude=_number(options.altitude),
        frame_metres=None if widths is None else numbers_of(widths, "--frame-metres", "60,140", count=2),
        **{
            name: getattr(options, name)
            for name in ("fov", "size_error", "ground_sizes", "rotations", "heading", "tile_metres")
        },
    )
    refine = RefineOptions(**{field: getattr(options, name) for name, field in _REFINING.items()})
    return nadir, refine if options.refine else None


def altitudes_of(given: Mapping[str, Any]) -> "Altitudes | None":
    """The CSV that --altitude names, None where it is a number or not given."""
    from geodtr.runtime.images.altitudes import read_altitudes

    path = given.get("altitude")
    return None if path is None or _number(path) is not None else read_altitudes(Path(path))


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None
