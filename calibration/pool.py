"""The images that calibration may choose from."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from geodtr.runtime.names import Branch


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
