"""Positions out of file names: the conventions that are about, and a pattern of one's own."""

import re
from pathlib import Path

from geodtr.runtime.errors import ConfigError, DataError
from geodtr.runtime.images.decode import SUFFIXES
from geodtr.runtime.sources.positioned.footprint import EDGES, Footprint
from geodtr.runtime.sources.tile import Position, check_position

# Whole numbers only: what stands beside must not be taken for a part of it, nor a part of it for what stands beside.
_NUMBER = r"(?:(?<![\d.])|(?=[-+]))[-+]?\d+(?:\.\d+)?(?!\.?\d)"
# Without decimals a number is no coordinate: a date or a running number is more likely.
_DEGREES = r"[-+]?\d{1,3}\.\d+"
_LAT, _LON = (rf"(?P<{name}>{_DEGREES})" for name in ("lat", "lon"))

CONVENTIONS = {
    "satellite_LAT_LON": re.compile(rf"satellite_{_LAT}_{_LON}"),
    "[ID,]LAT,LON[,]": re.compile(rf"(?:[^,]*,)?{_LAT},{_LON},?"),
    "lat_LAT_lon_LON": re.compile(
        rf"(?:.*[^a-z])?lat(?:itude)?[_= ]?{_LAT}[_,;& ]+(?:longitude|long|lon|lng)[_= ]?{_LON}(?:[^\d.].*)?", re.I
    ),
    "@EAST@NORTH@ZONE@BAND@LAT@LON@...": re.compile(rf"@[^@]*@[^@]*@[^@]*@[^@]*@{_LAT}@{_LON}@.*"),
    "@NAME@WEST@SOUTH@EAST@NORTH@": re.compile(
        r"@[^@]*" + "".join(rf"@(?P<{edge}>{_DEGREES})" for edge in ("west", "south", "east", "north")) + "@?"
    ),
}
"""File names without suffix. The first is the convention of VIGOR's tiles, the second of its panoramas, the fourth of
data sets for visual place recognition (Berton et al., CVPR 2022, "Deep visual geo-localization benchmark"), the last of
AerialVL's maps, which gives two corners.
"""


def compile_pattern(text: str) -> re.Pattern[str]:
    """A user's pattern, such as "tile_{lat}_{lon}*": {lat}, {lon} and, if wanted, {heading} stand for numbers in
    degrees, * for anything; {south}, {west}, {north} and {east} stand for a tile's edges, in place of its centre. It
    is held against the whole name; the file's ending may be left out of it. A sign before a number is the number's,
    unless the pattern holds it.

    Raises ConfigError when a field is missing or unknown, or comes twice.
    """
    fields = re.findall(r"\{(.*?)\}", text)
    whole = set(fields) == set(EDGES) or {"lat", "lon"} <= set(fields) <= {"lat", "lon", "heading"}
    if not whole or len(set(fields)) < len(fields):
        raise ConfigError(
            f"The pattern {text!r} cannot be used: it needs {{lat}} and {{lon}} once each, may have {{heading}}, and * "
            "for anything, for example 'tile_{lat}_{lon}*'; or all of {south}, {west}, {north} and {east}."
        )
    parts = re.split(r"(\{.*?\}|\*)", text)
    ending = "|".join(re.escape(suffix) for suffix in SUFFIXES)
    return re.compile("".join(map(_translate, parts)) + f"(?:{ending})?", re.IGNORECASE)


def _translate(part: str) -> str:
    if part == "*":
        return ".*?"
    return f"(?P<{part[1:-1]}>{_NUMBER})" if part.startswith("{") else re.escape(part)


def match_name(image: Path, pattern: re.Pattern[str]) -> Position:
    """The position in an image's name. Raises DataError when the name does not fit, gives two corners of which the
    pattern would take one for the centre, or is out of range.
    """
    match = pattern.fullmatch(image.name)
    if match is None:
        raise DataError(f"{image}: its name does not fit the pattern. Rename or remove it, or change --pattern.")
    if "lat" in match.groupdict() and CONVENTIONS["@NAME@WEST@SOUTH@EAST@NORTH@"].fullmatch(image.stem):
        raise DataError(
            f"{image}: its name gives two corners, and the pattern would take one of them for the centre. Leave "
            "--pattern out, or name the edges: '@*@{west}@{south}@{east}@{north}@'"
        )
    return _position(match, image)


def find_in_name(image: Path) -> Position | None:
    """The position by one of CONVENTIONS; None if the name follows none.

    Raises DataError when the name can be read in two ways, or a value is out of range.
    """
    positions = {
        _position(matched, image) for pattern in CONVENTIONS.values() if (matched := pattern.fullmatch(image.stem))
    }
    if len(positions) > 1:
        both = " or ".join(
            f"{each.lat}, {each.lon}" for each in sorted(positions, key=lambda each: (each.lat, each.lon))
        )
        raise DataError(f"{image}: its name may mean {both}. Say how names are meant: --pattern '..{{lat}}..{{lon}}..'")
    return positions.pop() if positions else None


def _position(found: re.Match[str], image: Path) -> Position:
    values = {name: float(text) for name, text in found.groupdict().items()}
    if "lat" in values:
        return check_position(values["lat"], values["lon"], str(image), values.get("heading"))
    return Footprint.north_up(**values, where=str(image)).position(image, str(image))
