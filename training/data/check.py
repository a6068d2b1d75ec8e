"""Check data sets before training: missing, unreadable, wrongly sized and duplicate images, and images in two splits.

Images are compared by their decoded pixels, because different files may decode to the same picture.
"""

import os
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from hashlib import blake2b
from itertools import combinations
from pathlib import Path

from geodtr.runtime.errors import ImageError
from geodtr.runtime.images.decode import read_image
from geodtr.runtime.machine import check_threads
from geodtr.runtime.names import BRANCHES, Branch
from geodtr.runtime.prefetch import work_ahead
from geodtr.runtime.progress import Track, untracked
from geodtr.training.data.pair_set import PairSet, Skipped
from geodtr.training.data.spec import Counts, Source, parse_spec


@dataclass(frozen=True, slots=True)
class CheckedBranch:
    """Results for one branch. `sizes` counts the readable images by "WIDTHxHEIGHT", the most common first.

    `duplicates` are groups of images with the same pixels.
    """

    images: int
    sizes: dict[str, int]
    unreadable: tuple[Skipped, ...]
    wrong_size: tuple[Skipped, ...]
    duplicates: tuple[tuple[Path, ...], ...]


@dataclass(frozen=True, slots=True)
class CountedImages:
    """A number of images of a set that is not the published one."""

    what: str
    found: int
    published: int


@dataclass(frozen=True, slots=True)
class CheckedSet:
    """Results for one set of pairs. `missing` are files that should exist and do not; their pairs are left out.

    `counts` are the numbers that differ from the published ones; empty where none are published, or the set is limited.
    """

    name: str
    pairs: int
    missing: tuple[Skipped, ...]
    branches: dict[Branch, CheckedBranch]
    counts: tuple[CountedImages, ...]


@dataclass(frozen=True, slots=True)
class Shared:
    """Images of one branch with the same pixels in two sets: each the file in the first set, then in the second."""

    first: str
    second: str
    branch: Branch
    images: tuple[tuple[Path, Path], ...]


@dataclass(frozen=True, slots=True)
class DataCheck:
    """All results. `shared` has one entry for each two sets and branch that share an image."""

    sets: tuple[CheckedSet, ...]
    shared: tuple[Shared, ...]

    @property
    def problems(self) -> dict[str, int]:
        """The number of problems by kind, without kinds that have none."""
        branches = [branch for checked in self.sets for branch in checked.branches.values()]
        counts = {
            "missing": sum(len(checked.missing) for checked in self.sets),
            "unreadable": sum(len(branch.unreadable) for branch in branches),
            "of a wrong size": sum(len(branch.wrong_size) for branch in branches),
            "double": sum(len(group) - 1 for branch in branches for group in branch.duplicates),
            "in two sets": sum(len(shared.images) for shared in self.shared),
        }
        return {kind: count for kind, count in counts.items() if count}


@dataclass(frozen=True, slots=True)
class _Image:
    """A decoded image: width and height, and a hash of its pixels."""

    size: tuple[int, int]
    digest: bytes


_Seen = Mapping[Path, _Image | ImageError]


def check(
    specs: Sequence[str], limit: int | None = None, *, jobs: int | None = None, track: Track = untracked
) -> DataCheck:
    """Decode each image of the data sets `specs` once, and compare all sets with each other.

    A SPEC without a split stands for the training and the test split of its kind, of SUES-200 at each height that it
    holds. `jobs` is the number of threads, by default one per core. Memory holds one hash per image. Raises DataError
    as the readers do.
    """
    splits = dict.fromkeys((source, split) for source in map(parse_spec, specs) for split in source.splits)
    opened = [(source, split, source.read(split, limit)) for source, split in splits]
    paths = dict.fromkeys(path for *_, pair_set in opened for branch in BRANCHES for path in pair_set.images(branch))
    seen: dict[Path, _Image | ImageError] = {}
    check_threads("jobs", jobs)
    threads = jobs or os.cpu_count() or 1
    with closing(work_ahead(_hash_image, paths, threads=threads, ahead=4 * threads)) as results:
        for path, result in track(results, "Checking images", len(paths)):
            try:
                seen[path] = result.result()
            except ImageError as error:
                seen[path] = error
    sets = tuple(
        CheckedSet(
            name=pair_set.name,
            pairs=len(pair_set),
            missing=pair_set.skipped,
            branches={branch: _check_branch(branch, source, pair_set, seen) for branch in BRANCHES},
            counts=() if limit is not None else _count(source.kind.published.get(split, Counts()), pair_set),
        )
        for source, split, pair_set in opened
    )
    shared = (
        Shared(first.name, second.name, branch, _in_both(first.images(branch), second.images(branch), seen))
        for (source, split, first), (other, other_split, second) in combinations(opened, 2)
        for branch in BRANCHES
        if not _share(branch, source, split, other, other_split)
    )
    return DataCheck(sets, tuple(entry for entry in shared if entry.images))


def _hash_image(path: Path) -> _Image:
    """Decode and hash one image. Raises ImageError when it cannot be decoded."""
    pixels = read_image(path)
    height, width, _ = pixels.shape
    return _Image((width, height), blake2b(pixels.tobytes(), digest_size=16, key=b"%dx%d" % (width, height)).digest())


def _check_branch(branch: Branch, source: Source, pair_set: PairSet, seen: _Seen) -> CheckedBranch:
    unreadable, readable = list[Skipped](), dict[Path, _Image]()
    for path in pair_set.images(branch):
        image = seen[path]
        if isinstance(image, ImageError):
            unreadable.append(Skipped(path, str(image)))
        else:
            readable[path] = image
    sizes = Counter(image.size for image in readable.values())
    known = source.kind.sizes.get(branch)
    expected = known or (sizes.most_common(1)[0][0] if sizes else None)
    square = branch == "aerial" and source.kind.square
    wrong = list[Skipped]()
    for path, image in readable.items():
        if image.size != expected and expected is not None:
            wrong.append(Skipped(path, f"{_text(image.size)}, {'not' if known else 'most are'} {_text(expected)}"))
        elif square and image.size[0] != image.size[1]:
            wrong.append(Skipped(path, f"{_text(image.size)}, not square"))
    groups = defaultdict[bytes, list[Path]](list)
    for path, image in readable.items():
        groups[image.digest].append(path)
    return CheckedBranch(
        images=len(unreadable) + len(readable),
        sizes={_text(size): count for size, count in sizes.most_common()},
        unreadable=tuple(unreadable),
        wrong_size=tuple(wrong),
        duplicates=tuple(tuple(group) for group in groups.values() if len(group) > 1),
    )


def _in_both(first: Sequence[Path], second: Sequence[Path], seen: _Seen) -> tuple[tuple[Path, Path], ...]:
    """The images of `second` with the same pixels as one in `first`, each preceded by the first such image."""
    by_digest: dict[bytes, Path] = {}
    for path in first:
        image = seen[path]
        if isinstance(image, _Image):
            by_digest.setdefault(image.digest, path)
    candidates = ((path, seen[path]) for path in second)
    return tuple(
        (by_digest[image.digest], path)
        for path, image in candidates
        if isinstance(image, _Image) and image.digest in by_digest
    )


def _count(published: Counts, pair_set: PairSet) -> tuple[CountedImages, ...]:
    numbers = (
        ("ground images", len(pair_set.images("ground")), published.ground),
        ("aerial images", len(pair_set.images("aerial")), published.aerial),
        ("aerial queries", len(pair_set.tile_queries), published.tile_queries),
    )
    return tuple(
        CountedImages(what, count, expected)
        for what, count, expected in numbers
        if expected is not None and count != expected
    )


def _share(branch: Branch, source: Source, split: str, other: Source, other_split: str) -> bool:
    """Whether two sets are splits over the same images of a branch by design."""
    kind = source.kind
    if source.name != other.name or source.root != other.root:
        return False
    return (
        {split, other_split} <= kind.shared_tiles
        if branch == "aerial"
        else not {split, other_split}.isdisjoint(kind.shared_grounds)
    )


def _text(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
