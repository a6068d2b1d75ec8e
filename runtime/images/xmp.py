"""XMP, the XML in image files in which panoramas state what they cover, and drones how they flew.

Knows the packet's bytes; knows nothing of files or models. Sources: Adobe's XMP specification, part 1; Google's Photo
Sphere XMP metadata (GPano); DJI's `drone-dji` properties.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite

import msgspec

from geodtr.runtime.errors import ImageError
from geodtr.runtime.files.documents import decode_xml

_RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}Description"
GPANO = "http://ns.google.com/photos/1.0/panorama/"
DJI = "http://www.dji.com/drone-dji/1.0/"

Properties = Mapping[str, str]
"""Texts by `{namespace}name`."""


def read_properties(packet: bytes | None) -> Properties:
    """The simple properties of an XMP packet. A packet that cannot be parsed states nothing."""
    if packet is None:
        return {}
    try:
        root = decode_xml(packet.strip(b"\0 \r\n\t"))
    except msgspec.DecodeError:
        return {}
    texts = dict[str, str]()
    for description in root.iter(_RDF):
        texts.update(description.attrib)
        texts.update((child.tag, child.text.strip()) for child in description if child.text and not len(child))
    return texts


def number_of(properties: Properties, namespace: str, name: str, of: str) -> float | None:
    """A number, None where it is absent. Raises ImageError, naming the image `of` and the property, for other text."""
    text = properties.get(f"{{{namespace}}}{name}")
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not isfinite(value):
        raise ImageError(f"{of}: its XMP has {name} {text[:40]!r}; a number is needed. Correct or remove it.")
    return value


@dataclass(frozen=True, slots=True)
class Panorama:
    """What GPano states: the width of a full turn and the columns that the image has of it, in pixels, and the heading
    of the image's middle column in degrees, None where unknown.
    """

    full_width: float
    cropped_width: float
    heading: float | None

    @property
    def field_of_view(self) -> float:
        """Horizontal, in degrees."""
        return 360 * self.cropped_width / self.full_width


def panorama_of(properties: Properties, of: str) -> Panorama | None:
    """None where the image does not say. Raises ImageError where the image `of` states what cannot be."""
    full, cropped = (
        number_of(properties, GPANO, name, of) for name in ("FullPanoWidthPixels", "CroppedAreaImageWidthPixels")
    )
    if full is None or cropped is None:
        return None
    if not 0 < cropped <= full:
        raise ImageError(
            f"{of}: its XMP has CroppedAreaImageWidthPixels {cropped:g} and FullPanoWidthPixels {full:g}; the first "
            "must be above 0, and at most the second. Correct or remove it."
        )
    heading = number_of(properties, GPANO, "PoseHeadingDegrees", of)
    left = 0.0 if cropped == full else number_of(properties, GPANO, "CroppedAreaLeftPixels", of)
    if heading is None or left is None:
        return Panorama(full, cropped, None)
    # It is stated of the full turn's middle.
    return Panorama(full, cropped, (heading + 360 * ((left + cropped / 2) / full - 0.5)) % 360)


def gimbal_pitch_of(properties: Properties, of: str) -> float | None:
    """Degrees, -90 straight down. None where unknown; DJI writes 0 for all three angles then."""
    angles = [number_of(properties, DJI, f"Gimbal{name}Degree", of) for name in ("Pitch", "Yaw", "Roll")]
    return angles[0] if any(angles) else None
