"""Check that images show the view of their branch.

Preprocessing accepts images of any shape, so swapped views would silently corrupt the ranges.
"""

from collections.abc import Sequence
from pathlib import Path

from geodtr.runtime.errors import DataError
from geodtr.runtime.images.decode import image_size
from geodtr.runtime.names import Branch
from geodtr.runtime.spec import Preprocessing

_SAMPLE = 8
_WIDE = 1.5
"""Aspect ratio (width by height) from which an image is not a tile."""


def check_view(branch: Branch, paths: Sequence[Path], how: Preprocessing) -> None:
    """Check the sizes of the first images in `paths` against the input of `branch`.

    Raises DataError when all are square but panoramas are needed, or all are wide but square tiles are needed.
    """
    sizes = [image_size(path) for path in paths[:_SAMPLE]]
    seen = ", ".join(sorted({f"{width}x{height}" for height, width in sizes}))
    if branch == "ground" and how.width >= _WIDE * how.height and all(height == width for height, width in sizes):
        raise DataError(
            f"The images for the ground branch are square ({seen}; first {paths[0]}), like aerial tiles. Name the "
            "folder of panoramas ground/ and the folder of tiles aerial/."
        )
    if branch == "aerial" and how.width == how.height and all(width >= _WIDE * height for height, width in sizes):
        raise DataError(
            f"The images for the aerial branch are wide ({seen}; first {paths[0]}), like panoramas. Name the folder of "
            "panoramas ground/ and the folder of tiles aerial/."
        )
