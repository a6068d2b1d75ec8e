"""The pool of available images, and the selection of calibration images."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from geodtr.runtime.images.preprocess import load_image
from geodtr.runtime.names import Branch
from geodtr.runtime.spec import BranchSpec, Descriptors, Images

IMAGES = 200


def load_whole(spec: BranchSpec, path: Path) -> Images:
    """An image as it is, preprocessed for a branch. Raises ImageError naming the file."""
    return load_image(path, spec.preprocessing)


@dataclass(frozen=True, slots=True)
class Pool:
    """Images of both branches. `name` is their SPEC or folder; `strata` holds the region or folder of each image.

    `load` gives what a branch gets of a file, uint8 RGB [height, width, 3], and `seen` what it is of panoramas, in
    words; empty for all of them.
    """

    name: str
    images: Mapping[Branch, tuple[Path, ...]]
    strata: Mapping[Branch, tuple[str, ...]]
    load: Callable[[BranchSpec, Path], Images] = load_whole
    seen: str = ""

    def names(self, branch: Branch) -> list[str]:
        """Paths relative to the images' common folder, so that the folder may be moved."""
        paths = [os.path.abspath(path) for path in self.images[branch]]  # noqa: PTH100 (links are not resolved)
        root = os.path.commonpath([str(Path(path).parent) for path in paths])
        return [os.path.relpath(path, root) for path in paths]

    def names_sha256(self, branch: Branch) -> str:
        """Hash of the images' relative paths in order, and of what is seen of panoramas; it changes when images are
        added or removed.
        """
        seen = (self.seen,) if branch == "ground" and self.seen else ()
        return sha256("\n".join((*self.names(branch), *seen)).encode()).hexdigest()


def at_random(paths: Sequence[Path], count: int, seed: int = 0) -> list[Path]:
    """`count` random paths in their original order; all if there are not more."""
    if len(paths) <= count:
        return list(paths)
    sample = np.random.default_rng(seed).choice(len(paths), size=count, replace=False)
    return [paths[index] for index in sorted(sample.tolist())]


def stratified(paths: Sequence[Path], strata: Sequence[str], count: int, seed: int = 0) -> list[Path]:
    """`count` paths, as evenly from each stratum as their sizes allow, at random within a stratum.

    Rare regions count as much as common ones, because ranges depend on extremes, not on averages.
    """
    generator = np.random.default_rng(seed)
    rows: dict[str, list[int]] = {}
    for row, stratum in enumerate(strata):
        rows.setdefault(stratum, []).append(row)
    queues = [generator.permutation(rows[stratum]).tolist() for stratum in sorted(rows)]
    sample: list[int] = []
    while len(sample) < min(count, len(paths)):
        for queue in queues:
            if queue and len(sample) < count:
                sample.append(queue.pop())
    return [paths[row] for row in sorted(sample)]


def coreset(paths: Sequence[Path], descriptors: Descriptors, count: int) -> list[Path]:
    """`count` paths that cover the embedding space, in their original order.

    Greedy k-centre: start with the image nearest to the mean, then add the image farthest from the selected ones. The
    radius is at most twice the optimum. Source: Gonzalez, Theoretical Computer Science 38, 1985; Sener and Savarese,
    ICLR 2018.
    """
    if len(paths) <= count:
        return list(paths)
    centres = [int(np.argmax(descriptors @ descriptors.mean(axis=0)))]
    nearest: NDArray[np.float32] = descriptors @ descriptors[centres[0]]
    while len(centres) < count:
        # Exclude selected images, also when several are identical.
        nearest[centres[-1]] = np.inf
        centres.append(int(np.argmin(nearest)))
        nearest = np.maximum(nearest, descriptors @ descriptors[centres[-1]])
    return [paths[row] for row in sorted(centres)]
