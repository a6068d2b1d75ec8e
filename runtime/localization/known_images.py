"""Images whose position is known, to calibrate on: geotagged photographs, or a table of them; and their measurement.

Knows files and positions; knows nothing of data sets, which give images of their own.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from geodtr.runtime.errors import DataError, ImageError
from geodtr.runtime.files.reading import sha256
from geodtr.runtime.files.text_rows import by_column, csv_rows
from geodtr.runtime.geodesy import Near, moved
from geodtr.runtime.images.decode import list_images
from geodtr.runtime.images.frames import Frame
from geodtr.runtime.localization.calibration import FixCalibration, calibrate, off_the_map
from geodtr.runtime.localization.fix import Floats
from geodtr.runtime.localization.localizer import Localizer
from geodtr.runtime.localization.result import Localisation
from geodtr.runtime.progress import Track, untracked
from geodtr.runtime.sources.positioned.photograph import read_photograph
from geodtr.runtime.sources.tile import check_position

MAX_IMAGES = 1_000_000
_MOST_OFF = 0.05
"""Share of images off the map: a few at its edge are measured as they will fly, more are of another map."""


@dataclass(frozen=True, slots=True)
class KnownImage:
    """An image and where it was taken, in degrees (WGS 84)."""

    image: Path
    lat: float
    lon: float


OnBadImage = Callable[[str], None]
"""Called with why an image is left out; raises where it may not be."""


def read_known_images(place: Path, on_bad: OnBadImage) -> list[KnownImage]:
    """The images of a folder by their tags, or of a CSV `ground,lat,lon` with paths relative to it.

    Raises DataError where neither can be read, ImageError where the folder holds no images.
    """
    if place.is_dir():
        return _of_folder(place, on_bad)
    if place.suffix.lower() != ".csv":
        raise DataError(
            f"{place} is neither a folder of photographs nor a .csv. Give a folder whose images have GPS tags, a CSV "
            "with the columns ground,lat,lon, or a data set (KIND:PATH)."
        )
    return _of_csv(place)


def _of_folder(folder: Path, on_bad: OnBadImage) -> list[KnownImage]:
    known = list[KnownImage]()
    for image in list_images(folder):
        try:
            at = read_photograph(image).position
        except (DataError, ImageError) as error:
            on_bad(str(error))
            continue
        if at is None:
            on_bad(f"{image}: its tags give no position. Give positions in a CSV with the columns ground,lat,lon.")
        else:
            known.append(KnownImage(image, *at))
    return known


def _of_csv(path: Path) -> list[KnownImage]:
    rows = csv_rows(path, MAX_IMAGES)
    header = [name.strip().lower() for name in next(rows, (0, []))[1]]
    if sorted(set(header) & {"ground", "lat", "lon"}) != ["ground", "lat", "lon"] or len(set(header)) < len(header):
        raise DataError(f"{path} has the columns {','.join(header) or '(none)'}; needed are ground, lat and lon.")
    known = list[KnownImage]()
    for where, values in by_column(rows, header, str(path)):
        try:
            lat, lon = float(values["lat"]), float(values["lon"])
        except ValueError:
            raise DataError(f"{where}: lat {values['lat']!r}, lon {values['lon']!r}; numbers are needed.") from None
        at = check_position(lat, lon, where)
        known.append(KnownImage(path.parent / values["ground"], at.lat, at.lon))
    return known


@dataclass(frozen=True, slots=True)
class Measured:
    """A calibration, and how many of its images were taken off the map."""

    calibration: FixCalibration
    off_the_map: int


def measure(
    localizer: Localizer,
    known: Sequence[KnownImage],
    data: str,
    *,
    near_metres: float | None = None,
    on_bad: OnBadImage,
    seed: int = 0,
    correct: bool = False,
    track: Track = untracked,
) -> Measured:
    """Localise images of known position and calibrate on how far off they are.

    With `near_metres`, each is searched under a prior of that radius whose centre is off by up to it, drawn by `seed`:
    evenly over the circle. With `correct`, fixes will be moved back by their bias. Copies of an image, and images that
    the model was not trained on, tell nothing and go to `on_bad`. Raises DataError where more than 5 per cent of the
    images were taken off the map, and what calibrating raises.
    """
    known = _without_copies(known, on_bad)
    lat, lon = (np.array([getattr(each, name) for each in known], np.float64) for name in ("lat", "lon"))
    off = off_the_map(lat, lon, *localizer.positions)
    if len(known) and off.mean() > _MOST_OFF:
        raise DataError(
            f"{np.count_nonzero(off)} of {len(known)} images were taken off the gallery's map, the first: "
            f"{known[int(off.argmax())].image}. No tile can be right there, and nothing is written. Check the "
            "positions, or calibrate with the gallery of that area."
        )
    located = _located(localizer, known, _priors(lat, lon, near_metres, seed), on_bad, track)
    for row, answer in located:
        if answer.doubt is not None:
            on_bad(f"{known[row].image}: {answer.doubt}; no radius is ever claimed for such images.")
    fixed = [(row, answer.fix) for row, answer in located if answer.fix is not None and answer.doubt is None]
    rows = [row for row, _ in fixed]
    calibration = calibrate(
        [fix for _, fix in fixed],
        lat[rows],
        lon[rows],
        localizer.conditions_near(near_metres),
        data=data,
        correct=correct,
    )
    return Measured(calibration, int(np.count_nonzero(off)))


def _without_copies(known: Sequence[KnownImage], on_bad: OnBadImage) -> list[KnownImage]:
    """The images whose content no image before them has: a radius is claimed by the number of errors measured."""
    kept = dict[str, KnownImage]()
    for each in known:
        try:
            content = sha256(each.image)
        except OSError:
            content = str(each.image)  # reading it will say why it cannot be
        if content in kept:
            on_bad(f"{each.image} is a copy of {kept[content].image}: it adds no measurement.")
        else:
            kept[content] = each
    return list(kept.values())


def _located(
    localizer: Localizer,
    known: Sequence[KnownImage],
    priors: Sequence[Near | None],
    on_bad: OnBadImage,
    track: Track,
) -> list[tuple[int, Localisation]]:
    """The answers by the row of their image, without the images that `on_bad` let pass."""
    frames, bad = [Frame(str(each.image), each.image) for each in known], set[int]()

    def leave_out(frame: Frame, error: ImageError) -> None:
        on_bad(str(error))
        bad.add(id(frame))

    if any(priors):
        answers = list[Localisation]()
        for frame, near in track(zip(frames, priors, strict=True), "Localising", len(frames)):
            try:
                answers.append(localizer.locate(frame, near=near))
            except ImageError as error:
                leave_out(frame, error)
    else:
        answers = list(localizer.locate_frames(frames, count=len(frames), on_error=leave_out, track=track))
    rows = [row for row, frame in enumerate(frames) if id(frame) not in bad]
    return list(zip(rows, answers, strict=True))


def _priors(lat: Floats, lon: Floats, metres: float | None, seed: int) -> list[Near | None]:
    """Circles about places that are up to `metres` from the true ones, evenly over the circle."""
    if metres is None:
        return [None] * len(lat)
    random = np.random.default_rng(seed)
    radius, angle = metres * np.sqrt(random.uniform(size=len(lat))), random.uniform(0, 2 * np.pi, len(lat))
    off = moved(lat, lon, radius * np.sin(angle), radius * np.cos(angle))
    return [Near(float(north), float(east), metres) for north, east in zip(*off, strict=True)]
