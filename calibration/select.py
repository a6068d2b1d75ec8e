"""The images that calibration may use, and which of them to choose."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from geodtr.runtime.names import Branch
from geodtr.runtime.spec import Descriptors

IMAGES = 200


@dataclass(frozen=True, slots=True)
class Pool:
    """Images of both branches; `name` is the SPEC or folder they came by. `strata` says of each which region or folder
    it is from.
    """

    name: str
    images: Mapping[Branch, tuple[Path, ...]]
    strata: Mapping[Branch, tuple[str, ...]]

    def names(self, branch: Branch) -> list[str]:
        """The images' places below the folder that all of them lie in: the same wherever that folder lies."""
        paths = [os.path.abspath(path) for path in self.images[branch]]  # noqa: PTH100 (links are left as they are)
        root = os.path.commonpath([str(Path(path).parent) for path in paths])
        return [os.path.relpath(path, root) for path in paths]

    def names_sha256(self, branch: Branch) -> str:
        """One hash over the images' names and folders, in order: whether there is anything else to choose from."""
        return sha256("\n".join(self.names(branch)).encode()).hexdigest()


def first(paths: Sequence[Path], count: int) -> list[Path]:
    """The first `count` of `paths`."""
    return list(paths[:count])


def at_random(paths: Sequence[Path], count: int, seed: int = 0) -> list[Path]:
    """`count` of `paths` by a seeded draw, in their original order; all of them where there are no more than that."""
    if len(paths) <= count:
        return list(paths)
    chosen = np.random.default_rng(seed).choice(len(paths), size=count, replace=False)
    return [paths[index] for index in sorted(chosen.tolist())]


def stratified(paths: Sequence[Path], strata: Sequence[str], count: int, seed: int = 0) -> list[Path]:
    """`count` of `paths`, as evenly from each stratum as their sizes allow, drawn at random within it.

    Rare regions are heard like common ones: ranges are of extremes, not of averages.
    """
    generator = np.random.default_rng(seed)
    rows: dict[str, list[int]] = {}
    for row, stratum in enumerate(strata):
        rows.setdefault(stratum, []).append(row)
    queues = [generator.permutation(rows[stratum]).tolist() for stratum in sorted(rows)]
    chosen: list[int] = []
    while len(chosen) < min(count, len(paths)):
        for queue in queues:
            if queue and len(chosen) < count:
                chosen.append(queue.pop())
    return [paths[row] for row in sorted(chosen)]


def coreset(paths: Sequence[Path], descriptors: Descriptors, count: int) -> list[Path]:
    """`count` of `paths` such that no other is far from all of them in embedding space, in their original order.

    The greedy k-centre: the image nearest the mean, then again and again the one farthest from those chosen. At most
    twice the best possible radius. Source: Gonzalez, Theoretical Computer Science 38, 1985; Sener and Savarese, ICLR
    2018.
    """
    if len(paths) <= count:
        return list(paths)
    chosen = [int(np.argmax(descriptors @ descriptors.mean(axis=0)))]
    nearest: NDArray[np.float32] = descriptors @ descriptors[chosen[0]]
    while len(chosen) < count:
        # A chosen image twice would come again where several are equal.
        nearest[chosen[-1]] = np.inf
        chosen.append(int(np.argmin(nearest)))
        nearest = np.maximum(nearest, descriptors @ descriptors[chosen[-1]])
    return [paths[row] for row in sorted(chosen)]
