"""Which of the toolkit's own folders and files is at a path, to say so where another kind was needed."""

from contextlib import suppress
from pathlib import Path
from typing import Literal

MANIFEST, GALLERY, STATE, CURRENT = "manifest.json", "gallery.json", "state.safetensors", "current"
"""The marks of a bundle, a gallery, a run of training, and a folder of installed archives."""

Own = Literal["bundle", "gallery", "run", "installation", "checkpoint", ""]

_MARKS: dict[str, Own] = {MANIFEST: "bundle", GALLERY: "gallery", STATE: "run", f"{CURRENT}/bundle": "installation"}


def own_kind(path: Path) -> Own:
    """The kind of what is at `path`; empty for anything that is not the toolkit's, or cannot be read."""
    with suppress(OSError):
        for name, kind in _MARKS.items():
            if (path / name).exists():
                return kind
        if path.suffix == ".safetensors" and path.is_file():
            return "checkpoint"
    return ""
