"""The command `gallery calibrate`: how far positions are off, measured on images whose place is known."""

from collections.abc import Mapping
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from geodtr.cli.console import messages, output, report_skipped, show_json, track, warn
from geodtr.cli.dataclass_options import with_options
from geodtr.cli.deploy.image_options import PANEL, ImageOptions, intake_of
from geodtr.cli.options import SPEC_HELP, AsJson, BundlePath, GalleryPlace, Headings, Limit, OnError, flag, leaving_out
from geodtr.cli.tables import table
from geodtr.runtime.errors import ConfigError, ImageError

if TYPE_CHECKING:
    from geodtr.runtime.localization.calibration import FixCalibration
    from geodtr.runtime.localization.known_images import KnownImage, OnBadImage


@with_options({PANEL: (ImageOptions,)})
def calibrate(
    bundle: BundlePath,
    place: GalleryPlace,
    data: Annotated[
        str,
        flag(
            "--data SPEC",
            "Images of known position: a folder of photographs with GPS tags, a CSV ground,lat,lon, or a data "
            f"set, {SPEC_HELP}",
        ),
    ],
    headings: Headings = 1,
    near: Annotated[
        float | None,
        flag(
            "--near RADIUS",
            "Measure positions under a prior of RADIUS metres, whose centre is off by up to it.",
            show_default="no prior",
        ),
    ] = None,
    limit: Limit = None,
    on_error: OnError = "stop",
    correct_bias: Annotated[
        bool,
        flag("--correct-bias", "Move positions back by the median bias from now on; refused where it may be chance."),
    ] = False,
    replace: Annotated[bool, flag("--replace", "Replace the gallery's calibration.")] = False,
    as_json: AsJson = False,
    *,
    given: Mapping[str, Any],
) -> None:
    """Measure how far positions are off on images whose place is known, so that `localize` can claim a radius.

    Use images that neither the model nor its settings have seen, taken as they will be in flight.
    """
    from geodtr.runtime.localization.calibration import LEAST_RADIUS, check_replaces, write_calibration
    from geodtr.runtime.localization.known_images import measure
    from geodtr.runtime.localization.localizer import Localizer

    if near is not None and not (isfinite(near) and near > 0):
        raise ConfigError(f"--near is {near:g}; a radius above 0 metres is needed.")
    intake = intake_of(given)
    on_bad = leaving_out(on_error, ImageError, "images")
    known = _known_images(data, limit, on_bad)
    with Localizer.open(bundle, place, headings=headings, intake=intake) as localizer:
        localizer.require_positions("a calibration")
        check_replaces(localizer.gallery, near, replace=replace)
        measured = measure(localizer, known, data, near_metres=near, on_bad=on_bad, correct=correct_bias, track=track)
        calibration = measured.calibration
        if measured.off_the_map:
            off = f"{measured.off_the_map} of {len(known)} images were taken off the gallery's map"
            warn(f"{off}, where no tile can be right.")
        written = write_calibration(localizer.gallery, calibration)
    if as_json:
        show_json(calibration)
        return
    shares = [f"{100 * share:g} % within (m)" for share in calibration.shares]
    rows = table(f"{calibration.queries} positions of {data}", ("margin from", "spread from (m)", "measured", *shares))
    for cell in calibration.cells:
        radii = ("-" if radius is None else f"{max(radius, LEAST_RADIUS):.1f}" for radius in cell.radii_m)
        rows.add_row(f"{cell.margin:.4f}", f"{cell.spread_m:.0f}", str(cell.queries), *radii)
    output.print(rows)
    if calibration.bias is not None:
        metres, direction = calibration.bias
        output.print(f" bias (median): {metres:.1f} m towards {direction:.0f}°{_interval_of(calibration)}")
    messages.print(f"Wrote {written}")


def _interval_of(calibration: "FixCalibration") -> str:
    """How surely the bias is known, and whether positions are moved against it."""
    interval = calibration.bias_interval_m
    if interval is None:
        return ""
    low, high, south, north = interval
    moved = "; positions are moved back by it" if calibration.corrected else ""
    return f" (95 %: {low:.1f} to {high:.1f} m east, {south:.1f} to {north:.1f} m north){moved}"


def _known_images(data: str, limit: int | None, on_bad: "OnBadImage") -> "list[KnownImage]":
    from geodtr.runtime.localization.known_images import KnownImage, read_known_images
    from geodtr.training.data.spec import is_spec, read_test_set

    if not is_spec(data):
        return read_known_images(Path(data), on_bad)[:limit]
    pair_set = read_test_set(data)
    report_skipped(pair_set.name, pair_set.skipped)
    pairs = (pair_set if limit is None else pair_set.first(limit)).pairs
    return [
        KnownImage(pair.ground, pair.lat, pair.lon) for pair in pairs if pair.lat is not None and pair.lon is not None
    ]
