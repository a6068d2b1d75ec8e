"""Objects on the ground around a location, stored in lattices so that the object at a point needs no search.

Each lattice cell holds at most one object, which stays within the cell. Coordinates are float32 metres east and north
of the location; x and y of points are [B, N]. Defines shapes only.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from geodtr.training.world.arrays import Bools, Codes, Floats, Indices, Ints, Positions


@dataclass(frozen=True, slots=True)
class Hits:
    """The points on an object; all arrays [M], in the order of the points."""

    point: Indices
    """Index into the flattened points."""
    thing: Ints
    """Index into the objects' flattened arrays."""
    height: Floats
    """Height of the object's surface above the ground in metres."""


class Things(Protocol):
    """Objects of one kind as a height field."""

    def hits(self, x: Floats, y: Floats) -> Hits: ...


@dataclass(frozen=True, slots=True)
class Lattice:
    """`side` by `side` square cells of `size` metres around each of B locations, aligned with the world's lattice."""

    size: float
    side: int
    first: Ints
    """World cell numbers of each location's first cell, [B, 2]."""
    east: Floats
    """Metres from the first cell's corner to the location, [B, 1]."""
    north: Floats

    @classmethod
    def around(cls, positions: Positions, reach: float, size: float) -> "Lattice":
        """Cells that cover at least `reach` metres on every side of `positions`, [B, 2] world metres."""
        first = np.floor((positions - reach) / size)
        corner = (positions - first * size).astype(np.float32)
        side = math.ceil(2 * reach / size) + 1
        return cls(size, side, first.astype(np.int32), corner[:, :1], corner[:, 1:])

    def cells(self) -> tuple[Ints, Ints]:
        """World cell numbers of every location's cells, [B, side * side] each."""
        steps = np.arange(self.side, dtype=np.int32)
        return np.repeat(self.first[:, :1] + steps, self.side, axis=1), np.tile(self.first[:, 1:] + steps, self.side)

    def centres(self) -> tuple[Floats, Floats]:
        """The centre of every cell relative to its location, [B, side * side] each."""
        steps = (np.arange(self.side, dtype=np.float32) + 0.5) * np.float32(self.size)
        return np.repeat(steps - self.east, self.side, axis=1), np.tile(steps - self.north, self.side)

    def lookup(self, x: Floats, y: Floats) -> Ints:
        """The cell of each point as an index into flattened [B, side * side] arrays, clipped to the nearest cell."""
        scale = np.float32(1 / self.size)
        i = ((x + self.east) * scale).astype(np.int32)
        j = ((y + self.north) * scale).astype(np.int32)
        np.clip(i, 0, self.side - 1, out=i)
        np.clip(j, 0, self.side - 1, out=j)
        i *= self.side
        i += j
        i += self.bases()
        return i

    def bases(self) -> Ints:
        """Index of each location's first cell in the flattened arrays, [B, 1]."""
        return (np.arange(len(self.first), dtype=np.int32) * self.side**2)[:, None]


@dataclass(frozen=True, slots=True)
class Boxes:
    """Upright boxes, one per cell; every array is [B, cells]. A height of 0 means an empty cell."""

    lattice: Lattice
    x: Floats
    y: Floats
    east: Floats
    """Direction of the box's length, a unit vector."""
    north: Floats
    half_length: Floats
    half_width: Floats
    height: Floats
    tone: Floats
    """A uniform draw in [0, 1) that determines the colour."""

    def hits(self, x: Floats, y: Floats) -> Hits:
        """The points inside a box."""
        point, thing = self._inside(x, y, 0.0)
        return Hits(point, thing, self.height.take(thing))

    def covers(self, x: Floats, y: Floats, margin: float) -> Bools:
        """Which points are in a box or less than `margin` metres outside it, within its cell."""
        covered = np.zeros(x.shape, np.bool_)
        point, _ = self._inside(x, y, margin)
        covered.ravel()[point] = True
        return covered

    def _inside(self, x: Floats, y: Floats, margin: float) -> tuple[Indices, Ints]:
        cells = self.lattice.lookup(x, y).ravel()
        # Most cells are empty, so drop them first.
        point = np.flatnonzero(self.height.take(cells) > 0)
        thing = cells[point]
        along, across = self.local(x.take(point), y.take(point), thing)
        inside = np.abs(along) < self.half_length.take(thing) + margin
        inside &= np.abs(across) < self.half_width.take(thing) + margin
        return point[inside], thing[inside]

    def local(self, x: Floats, y: Floats, thing: Ints) -> tuple[Floats, Floats]:
        """Coordinates along and across box `thing` from its centre in metres; x, y and thing are [M]."""
        return self.turned(x - self.x.take(thing), y - self.y.take(thing), thing)

    def turned(self, east: Floats, north: Floats, thing: Ints) -> tuple[Floats, Floats]:
        """Components of a vector along and across box `thing`; all [M]."""
        along_east, along_north = self.east.take(thing), self.north.take(thing)
        return east * along_east + north * along_north, north * along_east - east * along_north


@dataclass(frozen=True, slots=True)
class Trees:
    """Round crowns down to the ground, one per cell; every array is [B, cells]. A height of 0 means an empty cell."""

    lattice: Lattice
    x: Floats
    y: Floats
    radius: Floats
    height: Floats
    conifer: Bools
    """Cones; the others are domes."""
    tone: Floats
    """A uniform draw in [0, 1) that determines the colour."""

    def hits(self, x: Floats, y: Floats) -> Hits:
        """The points under a crown."""
        cells = self.lattice.lookup(x, y).ravel()
        point = np.flatnonzero(self.height.take(cells) > 0)
        thing = cells[point]
        off_axis = np.hypot(*self.local(x.take(point), y.take(point), thing))
        inside = off_axis < 1
        point, thing, off_axis = point[inside], thing[inside], off_axis[inside]
        dome = 0.55 + 0.45 * np.sqrt(1 - off_axis * off_axis)
        return Hits(point, thing, self.height.take(thing) * np.where(self.conifer.take(thing), 1 - off_axis, dome))

    def local(self, x: Floats, y: Floats, thing: Ints) -> tuple[Floats, Floats]:
        """Offset east and north of tree `thing`'s axis in units of its radius; x, y and thing are [M]."""
        radius = self.radius.take(thing)
        return (x - self.x.take(thing)) / radius, (y - self.y.take(thing)) / radius


@dataclass(frozen=True, slots=True)
class Mottle:
    """Smooth noise in [0, 1): draws at the corners of a lattice, interpolated between them."""

    lattice: Lattice
    value: Floats
    """The draw at each cell's south-west corner, [B, cells]."""

    def at(self, x: Floats, y: Floats) -> Floats:
        """The noise at points [B, N], which must be at least one cell inside the lattice."""
        scale = np.float32(1 / self.lattice.size)
        east, north = (x + self.lattice.east) * scale, (y + self.lattice.north) * scale
        i, j = east.astype(np.int32), north.astype(np.int32)
        east, north = _eased(east - i), _eased(north - j)
        corner = i * self.lattice.side + j + self.lattice.bases()
        south = _blend(self.value, corner, corner + self.lattice.side, east)
        return south + (_blend(self.value, corner + 1, corner + self.lattice.side + 1, east) - south) * north


@dataclass(frozen=True, slots=True)
class Shown:
    """The object shown at each point; flat arrays."""

    kind: Codes
    """Key of the object's kind; 0 if there is none."""
    thing: Ints
    """Index into that kind's flattened arrays."""


def tops(things: Mapping[int, Things], x: Floats, y: Floats) -> tuple[Floats, Shown]:
    """Height in metres and kind of the highest object at points [B, N], flat [B * N].

    The keys of `things` are above 0.
    """
    height = np.zeros(x.size, np.float32)
    shown = Shown(np.zeros(x.size, np.uint8), np.zeros(x.size, np.int32))
    for kind, group in things.items():
        hits = group.hits(x, y)
        higher = hits.height > height[hits.point]
        point = hits.point[higher]
        height[point], shown.kind[point], shown.thing[point] = hits.height[higher], kind, hits.thing[higher]
    return height, shown


def _eased(fraction: Floats) -> Floats:
    return fraction * fraction * (3 - 2 * fraction)


def _blend(values: Floats, first: Ints, second: Ints, share: Floats) -> Floats:
    start = values.take(first)
    return start + (values.take(second) - start) * share
