"""Arguments and options that several commands share, written once."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import typer

from geodtr.cli.console import warn
from geodtr.runtime.errors import ConfigError, ImageError, UserError
from geodtr.runtime.gallery.location import GalleryLocation, as_location
from geodtr.runtime.names import Index

if TYPE_CHECKING:
    from geodtr.runtime.geodesy import Near


def flag(name: str, help: str, **more: Any) -> Any:
    """An option by its flag, and by what its value is called in the help: `--limit N`."""
    names, _, value = name.partition(" ")
    return typer.Option(names, metavar=value or None, help=help, **more)


def argument(name: str, help: str, **more: Any) -> Any:
    """An argument, and how the help calls it."""
    return typer.Argument(metavar=name, help=help, **more)


SPEC_HELP = (
    "KIND:PATH or KIND:PATH#SPLIT; kinds: cvusa, cvact, vigor, university, sues, denseuav, visloc, gta, pairs and "
    "prepared."
)

Spec = Annotated[str, flag("--data SPEC", f"Data set, {SPEC_HELP}")]
Limit = Annotated[int | None, flag("--limit N", "Use the first N pairs.", min=1, show_default="all")]
ModelPath = Annotated[Path, argument("MODEL", "A checkpoint or a bundle.")]
BundlePath = Annotated[Path, argument("BUNDLE", "A bundle folder.")]


def path_or_url(text: str) -> GalleryLocation:
    """A gallery's place; `--help` shows this function's name as the type."""
    return as_location(text)


GALLERY_HELP = "a folder, a Milvus Lite file (map.db), or milvus://HOST:PORT/COLLECTION"
GalleryPlace = Annotated[GalleryLocation, argument("GALLERY", f"A gallery: {GALLERY_HELP}.", parser=path_or_url)]
GivenBundle = Annotated[Path, flag("--bundle", "The bundle that embeds.")]
GivenGallery = Annotated[
    GalleryLocation, flag("--gallery GALLERY", f"A gallery of the same model: {GALLERY_HELP}.", parser=path_or_url)
]
IndexAsked = Annotated[
    Index, flag("--index", "How Milvus searches: flat misses nothing; a folder is always searched so.")
]
AsJson = Annotated[bool, flag("--json", "Print JSON for machines.")]
Threads = Annotated[
    int | None,
    flag("--threads N", "Number of CPU threads of the engine.", min=1, show_default="the backend's own choice"),
]
OnError = Annotated[
    Literal["stop", "skip"], flag("--on-error", "At an image that cannot be read: stop, or leave it out and list it.")
]


def stop(image: object, error: ImageError) -> NoReturn:
    """`--on-error stop`: end at an image that cannot be read, and name the way to go on."""
    del image
    hint = "" if "--on-error" in str(error) else " To go on without it: --on-error skip"
    raise ImageError(f"{error}{hint}")


Every = Annotated[int, flag("--every N", "Use every N-th frame of videos and cameras.", min=1)]
FirstImages = Annotated[int | None, flag("--limit N", "Take the first N images.", min=1, show_default="all")]
IMAGES_HELP = (
    "Images, folders of them, videos, @LIST (a file that names one of these a line), or one camera: camera:INDEX, an "
    "address (rtsp://, udp://), or gst:PIPELINE."
)

Headings = Annotated[int, flag("--headings N", "Turns of a panorama to search; 1 where it is north up.", min=1)]
Seed = Annotated[int, flag("--seed", "Random seed.", min=0, max=2**32 - 1)]


def leaving_out(on_error: str, error: type[UserError], what: str) -> "Callable[[str], None]":
    """What happens to `what`, such as images, that cannot be used, for a reason: the `error` stops, or it is listed."""

    def leave_out(reason: str) -> None:
        if on_error == "stop":
            raise error(f"{reason} To leave such {what} out: --on-error skip")
        warn(f"Left out: {reason}")

    return leave_out


def out_option(what: str) -> Any:
    """`--out`, a place that must not be taken yet."""
    return flag("--out PATH", what)


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


def numbers_of(
    text: str, flag: str, example: str, of: Callable[[str], Any] = float, *, named: str = "", count: int = 0
) -> tuple[Any, ...]:
    """Numbers with commas between them, as many as `count` where it is given, which messages call `named`. Raises
    ConfigError naming the flag.
    """
    try:
        numbers = tuple(of(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if not numbers or (count and len(numbers) != count):
        named = named or ("two numbers" if count == 2 else "numbers")
        raise ConfigError(f"{flag} is {text!r}; {named} with commas are needed, for example {example}.")
    return numbers


def parse_near(text: str) -> "Near":
    """--near. Raises ConfigError."""
    from geodtr.runtime.geodesy import Near

    return Near(*numbers_of(text, "--near", "-30.01,-15.02,500", named="LAT,LON,RADIUS in degrees and metres", count=3))
