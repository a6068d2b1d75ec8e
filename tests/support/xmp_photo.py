"""Photographs whose XMP states what they show."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from geodtr.runtime.images.xmp import DJI, GPANO
from geodtr.runtime.spec import Images


def packet(gpano: Mapping[str, object] | None = None, dji: Mapping[str, object] | None = None) -> bytes:
    """An XMP packet with properties as attributes (GPano) and as elements (DJI)."""
    attributes = "".join(f' GPano:{name}="{value}"' for name, value in (gpano or {}).items())
    elements = "".join(f"<drone-dji:{name}>{value}</drone-dji:{name}>" for name, value in (dji or {}).items())
    return (
        "<?xpacket begin='' id='W5M0MpCehiHzreSzNTczkc9d'?><x:xmpmeta xmlns:x='adobe:ns:meta/'>"
        "<rdf:RDF xmlns:rdf='http://www.w3.org/1999/02/22-rdf-syntax-ns#'>"
        f"<rdf:Description xmlns:GPano='{GPANO}' xmlns:drone-dji='{DJI}'{attributes}>{elements}</rdf:Description>"
        "</rdf:RDF></x:xmpmeta><?xpacket end='w'?>"
    ).encode()


def write_photo(path: Path, pixels: Images, xmp: bytes = b"", exif: Image.Exif | None = None) -> Path:
    """A JPEG."""
    more: dict[str, Any] = {} if exif is None else {"exif": exif}
    Image.fromarray(pixels).save(path, quality=98, subsampling=0, xmp=xmp, **more)
    return path
