"""A plotted figure as pixels."""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from geodtr.export.plots.files import save_picture


def pixels_of(figure: Figure) -> NDArray[np.int64]:
    """The pixels of the written file, [H, W, 3]."""
    with TemporaryDirectory() as folder:
        save_picture(figure, Path(folder) / "figure.png")
        return np.asarray(Image.open(Path(folder) / "figure.png").convert("RGB")).astype(int)


def pixel_at(figure: Figure, east: float, north: float) -> tuple[int, int]:
    """Row and column of a position on a map, given in metres from its frame's south-western corner."""
    x, y = figure.axes[0].transData.transform((east, north))
    return round(figure.bbox.height - y), round(x)
