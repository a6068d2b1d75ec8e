"""Files of pictures: checked before the work, written whole or not at all."""

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from geodtr.runtime.errors import ConfigError, MissingDependency
from geodtr.runtime.files import check_new_file, new_file
from geodtr.runtime.installation import install_hint

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def check_pictures(*paths: Path | None, plotted: bool = True) -> None:
    """Check the paths of pictures before the work; None is a picture that nobody wants.

    Raises ConfigError when a path does not end in .png or is named twice, OutputExists when it is taken, and of
    pictures that are `plotted`, rather than put together from images, MissingDependency without matplotlib.
    """
    wanted = [path for path in paths if path is not None]
    for path in wanted:
        if wanted.count(path) > 1:
            raise ConfigError(f"{path} is named for two pictures; give each a file of its own.")
        check_new_file(path, (".png",))
    if wanted and plotted:
        require_matplotlib()


def require_matplotlib() -> None:
    """Raise MissingDependency unless matplotlib is installed."""
    if find_spec("matplotlib") is None:
        raise MissingDependency(f"Pictures are drawn by matplotlib, which is not installed: {install_hint('plots')}")


def save_picture(picture: "Figure | Image.Image", path: Path, *, replace: bool = False) -> None:
    """Write a PNG file, durably or not at all. Raises OutputExists where something is there, unless it is to be
    replaced.
    """
    with new_file(path, replace=replace) as file:
        if isinstance(picture, Image.Image):
            picture.save(file, "PNG")
            return
        from geodtr.export.plots.theme import escape_texts, themed

        escape_texts(picture)
        themed(picture.savefig)(file, format="png")
