"""The images that calibration may choose from."""

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

    def names_sha256(self, branch: Branch) -> str:
        """One hash over the images' names and folders, in order: whether there is anything else to choose from."""
        text = "\n".join("/".join(path.parts[-2:]) for path in self.images[branch])
        return sha256(text.encode()).hexdigest()
