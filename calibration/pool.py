"""The pool of images from which calibration images are selected."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from geodtr.runtime.names import Branch


@dataclass(frozen=True, slots=True)
class Pool:
    """Images of both branches. `name` is their SPEC or folder; `strata` holds the region or folder of each image."""

    name: str
    images: Mapping[Branch, tuple[Path, ...]]
    strata: Mapping[Branch, tuple[str, ...]]

    def names(self, branch: Branch) -> list[str]:
        """Paths relative to the images' common folder, so that the folder may be moved."""
        paths = [os.path.abspath(path) for path in self.images[branch]]  # noqa: PTH100 (links are not resolved)
        root = os.path.commonpath([str(Path(path).parent) for path in paths])
        return [os.path.relpath(path, root) for path in paths]

    def names_sha256(self, branch: Branch) -> str:
        """Hash of the images' relative paths in order; it changes when images are added or removed."""
        return sha256("\n".join(self.names(branch)).encode()).hexdigest()
