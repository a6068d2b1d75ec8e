"""Arguments and options that several commands share, written once."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from geodtr.runtime.gallery.location import GalleryLocation, as_location
from geodtr.runtime.names import Index

if TYPE_CHECKING:
    from geodtr.runtime.geodesy import Near

SPEC_HELP = (
    "KIND:PATH or KIND:PATH#SPLIT; kinds: cvusa, cvact, vigor, university, sues, denseuav, visloc, gta, pairs and "
    "prepared."
)

Spec = Annotated[
    str,
    typer.Option(
        "--data",
        metavar="SPEC",
        help=f"Data set, {SPEC_HELP}",
        show_default=False,
    ),
]
Limit = Annotated[
    int | None, typer.Option("--limit", min=1, help="Use the first N pairs.", metavar="N", show_default="all")
]
ModelPath = Annotated[Path, typer.Argument(metavar="MODEL", help="A checkpoint or a bundle.", show_default=False)]
BundlePath = Annotated[Path, typer.Argument(metavar="BUNDLE", help="A bundle folder.", show_default=False)]


def path_or_url(text: str) -> GalleryLocation:
    """A gallery's place; `--help` shows this function's name as the type."""
    return as_location(text)


GALLERY_HELP = "a folder, a Milvus Lite file (map.db), or milvus://HOST:PORT/COLLECTION"
GalleryPlace = Annotated[
    GalleryLocation,
    typer.Argument(metavar="GALLERY", help=f"A gallery: {GALLERY_HELP}.", parser=path_or_url, show_default=False),
]
GivenBundle = Annotated[Path, typer.Option("--bundle", help="The bundle that embeds.", show_default=False)]
GivenGallery = Annotated[
    GalleryLocation,
    typer.Option(
        "--gallery",
        metavar="GALLERY",
        help=f"A gallery of the same model: {GALLERY_HELP}.",
        parser=path_or_url,
        show_default=False,
    ),
]
IndexAsked = Annotated[
    Index, typer.Option("--index", help="How Milvus searches: flat misses nothing; a folder is always searched so.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
Threads = Annotated[
    int | None,
    typer.Option(
        "--threads",
        min=1,
        metavar="N",
        help="Number of CPU threads of the engine.",
        show_default="the backend's own choice",
    ),
]
OnError = Annotated[
    Literal["stop", "skip"],
    typer.Option("--on-error", help="At an image that cannot be read: stop, or leave it out and list it."),
]
Every = Annotated[int, typer.Option("--every", min=1, metavar="N", help="Use every N-th frame of videos and cameras.")]
FirstImages = Annotated[
    int | None, typer.Option("--limit", min=1, metavar="N", help="Take the first N images.", show_default="all")
]
IMAGES_HELP = (
    "Images, folders of them, videos, @LIST (a file that names one of these a line), or one camera: camera:INDEX, an "
    "address (rtsp://, udp://), or gst:PIPELINE."
)

Headings = Annotated[
    int, typer.Option("--headings", min=1, metavar="N", help="Turns of a panorama to search; 1 where it is north up.")
]
Seed = Annotated[int, typer.Option("--seed", min=0, max=2**32 - 1, help="Random seed.")]


def out_option(what: str) -> typer.models.OptionInfo:
    """`--out`, a place that must not be taken yet."""
    info: typer.models.OptionInfo = typer.Option("--out", metavar="PATH", help=what, show_default=False)
    return info


def parse_size(text: str) -> tuple[int, int]:
    """HxW -> (height, width). Raises BadParameter."""
    height, cross, width = text.lower().partition("x")
    if not cross or whole_number(height) is None or whole_number(width) is None:
        raise typer.BadParameter(f"{text!r} is not HEIGHTxWIDTH, for example 48x192; a side has up to 65535 pixels.")
    return int(height), int(width)


def whole_number(text: str, most: int = 65_535) -> int | None:
    """A number from 1 to `most` in ASCII digits; None if the text is anything else."""
    text = text.strip()
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        return None
    number = int(text)
    return number if 1 <= number <= most else None


def parse_near(text: str) -> "Near":
    """--near. Raises ConfigError."""
    from geodtr.runtime.errors import ConfigError
    from geodtr.runtime.geodesy import Near

    try:
        lat, lon, radius = (float(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(
            f"--near {text!r} is not LAT,LON,RADIUS: degrees, degrees and metres, for example -30.01,-15.02,500."
        ) from None
    return Near(lat, lon, radius)
