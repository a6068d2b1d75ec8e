"""How many metres a fix may be off: measured on images whose place is known, kept beside the gallery as `fixes.json`.

Conformal prediction: fixes are sorted into cells by margin and spread, and a fix claims the radius within which the
wanted share of its cell's measured fixes lay, rounded up so that the claim holds for a next fix as well, for any
distribution of errors. It assumes only that flights look like the calibration images (exchangeability). Sources:
Vovk, Gammerman and Shafer, Algorithmic Learning in a Random World, 2005, 4.5 (Mondrian: a guarantee in every cell);
Angelopoulos and Bates, A Gentle Introduction to Conformal Prediction, 2021.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from geodtr.runtime.errors import ConfigError, GalleryError, OutputExists
from geodtr.runtime.files import check_writable
from geodtr.runtime.files.documents import decode_json
from geodtr.runtime.gallery.base import Gallery
from geodtr.runtime.geodesy import distance, east_north, moved
from geodtr.runtime.localization.fix import NEIGHBOURHOOD, Fix, Floats, Radius

FILE_NAME = "fixes.json"
SHARES = (0.68, 0.95)
MIN_QUERIES = 60
"""Fewer calibration images leave no cell with enough of them for a claim at 95 %."""

LEAST_RADIUS = 1.0
"""Metres. Neither maps nor images are positioned better; a set whose tiles are listed at its images' own positions
measures 0."""

_Z = 2.2414
"""Standard deviations within which 97.5 % of a normal distribution lie."""
_CELL = 60
_MOST_CELLS = 25
_LEAST_MARGIN, _LEAST_SPREAD = -2.0, 0.0  # two cosines differ by no more than 2


class Conditions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Under which fixes were measured; a fix made under others is not calibrated. `places_sha256` covers the position
    of every tile: a gallery that gained, lost or moved one answers differently. `near_m`: radius of the prior, None
    without one. `images`: what was done to the images (Intake.conversion).
    """

    embedding_id: str
    places_sha256: str
    candidates: int
    headings: int
    neighbourhood_m: float
    near_m: float | None = None
    images: str = "as taken"

    def difference(self, other: "Conditions") -> str | None:
        """What of `other` differs, in words; None when nothing does."""
        for name in self.__struct_fields__:
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine != theirs:
                return f"it was calibrated with {name} {mine}, and this is {theirs}"
        return None


class Cell(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Fixes of at least this margin and spread, up to the next cell's: of `queries` measured ones, the radius in metres
    for each share; null where they are too few for the claim.
    """

    margin: float
    spread_m: float
    queries: int
    radii_m: tuple[float | None, ...]


class FixCalibration(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What was measured, on which data and under which conditions. Cells rise by margin, then by spread.

    `bias_east_m`, `bias_north_m`: the median offset of the fixes from the images' positions; a map or the positions
    themselves may be shifted. `bias_interval_m` holds it at 95 %: east from, to, north from, to. If `corrected`, fixes
    are moved back by the bias, which was measured on other images than the radii.
    """

    schema: Literal[1] = 1
    conditions: Conditions
    data: str
    queries: int
    shares: tuple[float, ...]
    cells: tuple[Cell, ...]
    bias_east_m: float | None = None
    bias_north_m: float | None = None
    bias_interval_m: tuple[float, float, float, float] | None = None
    corrected: bool = False

    @property
    def bias(self) -> tuple[float, float] | None:
        """Metres, and the direction in degrees clockwise from north in which fixes are off."""
        if self.bias_east_m is None or self.bias_north_m is None:
            return None
        direction = math.degrees(math.atan2(self.bias_east_m, self.bias_north_m)) % 360
        return math.hypot(self.bias_east_m, self.bias_north_m), direction

    def within(self, margin: float, spread: float) -> tuple[Radius, ...]:
        """The radii that a fix of this margin and spread may claim."""
        row = max((cell.margin for cell in self.cells if cell.margin <= margin), default=self.cells[0].margin)
        cells = [cell for cell in self.cells if cell.margin == row]
        cell = max((cell for cell in cells if cell.spread_m <= spread), key=lambda cell: cell.spread_m)
        claims = zip(self.shares, cell.radii_m, strict=True)
        return tuple(Radius(share, max(metres, LEAST_RADIUS)) for share, metres in claims if metres is not None)

    def apply(self, fix: Fix) -> Fix:
        """The same fix with the radii that it may claim, moved back by the bias where that is to be corrected."""
        within = self.within(fix.margin, fix.spread)
        if not self.corrected or self.bias_east_m is None or self.bias_north_m is None:
            return replace(fix, within=within)
        lat, lon = moved(fix.lat, fix.lon, -self.bias_east_m, -self.bias_north_m)
        corrected = (-self.bias_east_m, -self.bias_north_m)
        return replace(fix, lat=float(lat), lon=float(lon), within=within, corrected_m=corrected)


def places_sha256(lat: Floats, lon: Floats) -> str:
    """Hex SHA-256 over the positions of a gallery's tiles, float64 degrees [N] each, in the gallery's order."""
    digest = sha256(np.ascontiguousarray(lat, "<f8").tobytes())
    digest.update(np.ascontiguousarray(lon, "<f8").tobytes())
    return digest.hexdigest()


def off_the_map(lat: Floats, lon: Floats, tile_lat: Floats, tile_lon: Floats) -> NDArray[np.bool_]:
    """Which places [N] lie beyond a tile's side from the rectangle around all tiles, in degrees; unknown tiles are
    left out. Where any does, the calibration images are of another map, or this one has too few tiles.
    """
    known = np.isfinite(tile_lat) & np.isfinite(tile_lon)
    origin = (tile_lat[known][0], tile_lon[known][0])
    off = np.zeros(len(lat), np.bool_)
    for tiles, places in zip(
        east_north(tile_lat[known], tile_lon[known], *origin), east_north(lat, lon, *origin), strict=True
    ):
        off |= (places < tiles.min() - NEIGHBOURHOOD) | (places > tiles.max() + NEIGHBOURHOOD)
    return off


def calibrate(
    fixes: Sequence[Fix],
    lat: ArrayLike,
    lon: ArrayLike,
    conditions: Conditions,
    *,
    data: str,
    shares: Sequence[float] = SHARES,
    seed: int = 0,
    correct: bool = False,
) -> FixCalibration:
    """Measure `fixes` against where their images were taken, lat and lon [N] in degrees.

    A third of them, drawn by `seed`, decides where one cell ends and the next begins; the others are measured: errors
    that had drawn the borders themselves would flatter. The more fixes, the more cells, about 60 fixes each.
    With `correct`, the third measures the bias as well, and the others are measured without it.

    Raises ConfigError for fewer than MIN_QUERIES fixes, a share that is not between 0 and 1, or a bias to correct that
    may be chance.
    """
    if len(fixes) < MIN_QUERIES:
        raise ConfigError(
            f"{len(fixes)} images have a fix and a known position; at least {MIN_QUERIES} are needed to calibrate."
        )
    for share in shares:
        if not 0 < share < 1:
            raise ConfigError(f"A share is {share}; it must lie between 0 and 1.")
    margin, spread = (np.array([getattr(fix, name) for fix in fixes]) for name in ("margin", "spread"))
    places = np.asarray(lat, np.float64), np.asarray(lon, np.float64)
    fixed = np.array([fix.lat for fix in fixes]), np.array([fix.lon for fix in fixes])
    order = np.random.default_rng(seed).permutation(len(fixes))
    drawn, measured = np.split(order, [len(fixes) // 3])
    east, north = east_north(*fixed, *places)
    of = drawn if correct else order
    bias = float(np.median(east[of])), float(np.median(north[of]))
    interval = (*_median_interval(east[of]), *_median_interval(north[of]))
    if correct:
        _check_bias(*bias, interval)
    error = np.hypot(east - bias[0], north - bias[1]) if correct else distance(*fixed, *places)

    wanted = min(_MOST_CELLS, max(1, len(measured) // _CELL))
    rows = math.isqrt(wanted)
    cells = list[Cell]()
    margins = _borders(margin[drawn], rows, _LEAST_MARGIN)
    for low, high in zip(margins, (*margins[1:], np.inf), strict=True):
        in_row = (margin >= low) & (margin < high)
        spreads = _borders(spread[drawn][in_row[drawn]], wanted // rows, _LEAST_SPREAD)
        for near, far in zip(spreads, (*spreads[1:], np.inf), strict=True):
            inside = measured[(in_row & (spread >= near) & (spread < far))[measured]]
            radii = tuple(_radius(error[inside], share) for share in shares)
            cells.append(Cell(margin=low, spread_m=near, queries=len(inside), radii_m=radii))
    return FixCalibration(
        conditions=conditions,
        data=data,
        queries=len(fixes),
        shares=tuple(shares),
        cells=tuple(cells),
        bias_east_m=bias[0],
        bias_north_m=bias[1],
        bias_interval_m=interval,
        corrected=correct,
    )


def _median_interval(values: Floats) -> tuple[float, float]:
    """Between which the median lies at 97.5 %, so that two such hold together at 95 %: order statistics, without a
    supposition on the values (David and Nagaraja, Order Statistics, 2003, 7.1), by the normal approximation of ranks.
    """
    rank = max(1, math.floor(len(values) / 2 - _Z * math.sqrt(len(values)) / 2))
    ordered = np.sort(values)
    return float(ordered[rank - 1]), float(ordered[len(values) - rank])


def _check_bias(east: float, north: float, interval: tuple[float, float, float, float]) -> None:
    """Raise ConfigError where the interval holds zero."""
    west_end, east_end, south_end, north_end = interval
    if west_end <= 0 <= east_end and south_end <= 0 <= north_end:
        raise ConfigError(
            f"The bias, {math.hypot(east, north):.1f} m, may be chance: it lies between {west_end:.1f} and "
            f"{east_end:.1f} m east and between {south_end:.1f} and {north_end:.1f} m north (95 %), which holds zero. "
            "Calibrate without --correct-bias, or on more images."
        )


def file_of(near: float | None) -> str:
    """The name of the calibration for priors of this radius in metres, or for none."""
    return FILE_NAME if near is None else f"fixes-near-{near:g}.json"


def is_calibrated(gallery: Path) -> bool:
    """Whether a gallery's folder has a calibration, for priors or for none."""
    return any(gallery.glob(f"{Path(FILE_NAME).stem}*.json"))


def write_calibration(gallery: Gallery, calibration: FixCalibration) -> str:
    """Keep it with the gallery, indented for people; an older one is replaced. Returns where it lies."""
    content = msgspec.json.format(msgspec.json.encode(calibration), indent=2) + b"\n"
    return gallery.attach(file_of(calibration.conditions.near_m), content)


def check_replaces(gallery: Gallery, near: float | None, *, replace: bool) -> None:
    """Ask before the images are localised: raise OutputExists where the gallery has such a calibration, and it is not
    to be replaced, UserError where its folder cannot be written.
    """
    if not replace and gallery.attached(file_of(near)) is not None:
        raise OutputExists(
            f"{gallery.name} has a calibration, {file_of(near)}. To measure it again and replace it: --replace"
        )
    if (folder := Path(gallery.name)).is_dir():
        check_writable(folder / file_of(near))


def read_calibration(gallery: Gallery, near: float | None = None) -> FixCalibration | None:
    """The gallery's calibration for priors of the radius `near` in metres, or for none; None where it has none.

    Raises GalleryError when it cannot be read.
    """
    path = f"{gallery.name}/{file_of(near)}"
    content = gallery.attached(file_of(near))
    if content is None:
        return None
    try:
        calibration = decode_json(content, FixCalibration)
    except msgspec.DecodeError as error:
        raise GalleryError(f"{path} is not valid: {error}. {_AGAIN}") from None
    rows = {cell.margin for cell in calibration.cells}
    complete = all((row, _LEAST_SPREAD) in {(cell.margin, cell.spread_m) for cell in calibration.cells} for row in rows)
    radii = [radius for cell in calibration.cells for radius in cell.radii_m if radius is not None]
    even = all(len(cell.radii_m) == len(calibration.shares) for cell in calibration.cells)
    if not rows or not complete or not even or any(radius < 0 for radius in radii):
        raise GalleryError(f"{path} is not valid: its cells leave something out. {_AGAIN}")
    return calibration


_AGAIN = "Remove it, or calibrate again: geodtr-export gallery calibrate BUNDLE GALLERY --data SPEC"


def _borders(values: Floats, count: int, least: float) -> tuple[float, ...]:
    """Where each of about `count` equally filled cells begins; the first takes everything below as well."""
    if not len(values):
        return (least,)
    inner = np.quantile(values, np.arange(1, count) / count)
    return (least, *np.unique(inner[inner > least]).tolist())


def _radius(errors: Floats, share: float) -> float | None:
    """The ceil((n + 1) share)-th smallest of n errors; None where n is too small for the share."""
    rank = math.ceil((len(errors) + 1) * share)
    if rank > len(errors):
        return None
    return float(np.partition(errors, rank - 1)[rank - 1])
