"""Whether images show the view that they are given for. Resizing takes whatever comes: tiles given for panoramas would
calibrate like any others, and spoil every range.
"""

from collections.abc import Sequence
from pathlib import Path

from geodtr.runtime.errors import DataError
from geodtr.runtime.images.decode import image_size
from geodtr.runtime.names import Branch
from geodtr.runtime.spec import Preprocessing

_LOOKED_AT = 8
_WIDE = 1.5
"""Width by height from which an image is no tile."""


def check_view(branch: Branch, paths: Sequence[Path], how: Preprocessing) -> None:
    """Look at the sizes of the first of `paths`, which are to become inputs of `branch`.

    Raises DataError when all are square and panoramas are wanted, or all are wide and square tiles are.
    """
    sizes = [image_size(path) for path in paths[:_LOOKED_AT]]
    seen = ", ".join(sorted({f"{width}x{height}" for height, width in sizes}))
    if branch == "ground" and how.width >= _WIDE * how.height and all(height == width for height, width in sizes):
        raise DataError(
            f"The images for the ground branch are square ({seen}; first {paths[0]}), which aerial tiles are and "
            "panoramas are not. Name the panoramas' folder as ground/ and the tiles' as aerial/."
        )
    if branch == "aerial" and how.width == how.height and all(width >= _WIDE * height for height, width in sizes):
        raise DataError(
            f"The images for the aerial branch are wide ({seen}; first {paths[0]}), which panoramas are and tiles "
            "are not. Name the panoramas' folder as ground/ and the tiles' as aerial/."
        )
