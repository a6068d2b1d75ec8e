"""Localisation: from street-level images to the tiles where they were probably taken."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from geodtr.runtime.bundle import Bundle
from geodtr.runtime.engines.opening import AS_IT_LIKES, EngineOptions
from geodtr.runtime.gallery import Gallery
from geodtr.runtime.pipeline import embed_files
from geodtr.runtime.progress import Track, untracked
from geodtr.runtime.tile import Tile


@dataclass(frozen=True, slots=True)
class Candidate:
    """One tile that a query may show: its gallery row, place, and cosine similarity (-1..1)."""

    row: int
    place: Tile
    score: float


@dataclass(frozen=True, slots=True)
class Localisation:
    """A query image and its nearest tiles, best first."""

    image: Path
    candidates: tuple[Candidate, ...]


class Localizer:
    """The ground branch of a bundle and a gallery of the same embedding space."""

    def __init__(self, bundle: Bundle, gallery: Gallery, options: EngineOptions = AS_IT_LIKES) -> None:
        """Raises EmbeddingSpaceMismatch when the gallery was built by another model."""
        gallery.require_space(bundle.manifest.embedding_id)
        self._embedder = bundle.embedder("ground", options)
        self._gallery = gallery

    def locate(self, images: Sequence[Path], top: int = 5, *, track: Track = untracked) -> list[Localisation]:
        """The `top` nearest tiles of each image, in the order given. Raises ImageError, naming the bad file."""
        queries = embed_files(self._embedder, images, description="Localising", track=track)
        hits = self._gallery.search(queries, top)
        return [
            Localisation(image, tuple(map(Candidate, rows, self._gallery.tiles(rows), scores)))
            for image, rows, scores in zip(images, hits.rows.tolist(), hits.scores.tolist(), strict=True)
        ]
