"""Landscape styles of the generated world: roads, land use, buildings, plants and colours.

Tables follow the order of terrain's LandUse and cover's Material.
"""

from dataclasses import dataclass

Range = tuple[float, float]
"""Bounds of a uniform draw."""
Colour = tuple[float, float, float]
"""RGB, 0 to 1, before the camera."""


@dataclass(frozen=True, slots=True)
class Roads:
    """The two crossing families of roads."""

    spacing: float
    """Metres between neighbouring roads of one family, before bending and random shifts."""
    shares: tuple[float, float, float]
    """Shares of tracks, streets and avenues; the remaining roads are left out."""
    bends: tuple[float, float, float]
    """Amplitudes in metres of terrain's waves, from the longest; 0 is straight."""


@dataclass(frozen=True, slots=True)
class Buildings:
    """Layout of one kind of building, in metres; `odds` is the probability of one per cell, by land use."""

    cell: float
    odds: tuple[float, ...]
    side: Range
    height: Range
    clearance: float
    """Minimum distance to any road."""


@dataclass(frozen=True, slots=True)
class Plants:
    """Distribution of trees and withered grass."""

    odds: tuple[float, ...]
    """Probability of a tree per cell, by land use."""
    lined: float
    """Share of blocks with trees along their roads."""
    conifers: float
    """Share of blocks with conifers."""
    withering: float
    """How withered grass gets in patches, 0 to 1."""


@dataclass(frozen=True, slots=True)
class Colours:
    """Colours of the ground, the objects and the air."""

    ground: tuple[Colour, ...]
    """By material; grass for season 0."""
    autumn_grass: Colour
    withered_grass: Colour
    leaves: Colour
    autumn_leaves: Colour
    needles: Colour
    hall_roof: Colour
    roofs: tuple[Colour, ...]
    walls: tuple[Colour, ...]
    horizon: Colour
    """Also the colour of haze."""


@dataclass(frozen=True, slots=True)
class Style:
    """A landscape style. Regions of one style differ as two locations in one country do."""

    roads: Roads
    land_use: tuple[float, float, float, float, float]
    """Shares of blocks that are meadow, field, forest, homes and town; the remaining blocks are water."""
    halls: Buildings
    houses: Buildings
    plants: Plants
    parked: float
    """Probability of a car at each possible position."""
    season: Range
    """Season of a view, within 0 (green) to 1 (autumn)."""
    overcast: Range
    """Cloud cover of a sky, within 0 (blue) to 1 (grey)."""
    haze: float
    """Distance in metres at which 1/e of a colour is left."""
    gable: float
    """Contrast between the two slopes of a house's roof; 0 is a flat roof."""
    colours: Colours


TEMPERATE = Style(
    roads=Roads(spacing=46.0, shares=(0.22, 0.38, 0.22), bends=(170.0, 60.0, 7.0)),
    land_use=(0.22, 0.20, 0.12, 0.28, 0.12),
    halls=Buildings(
        cell=34.0, odds=(0.0, 0.02, 0.0, 0.0, 0.80, 0.0), side=(16.0, 24.0), height=(5.0, 14.0), clearance=2.0
    ),
    houses=Buildings(
        cell=15.0, odds=(0.06, 0.03, 0.0, 0.75, 0.25, 0.0), side=(6.5, 12.0), height=(3.5, 8.5), clearance=1.5
    ),
    plants=Plants(odds=(0.10, 0.02, 0.75, 0.22, 0.06, 0.0), lined=0.35, conifers=0.4, withering=0.45),
    parked=0.10,
    season=(0.0, 1.0),
    overcast=(0.0, 1.0),
    haze=130.0,
    gable=0.28,
    colours=Colours(
        ground=(
            (0.30, 0.46, 0.20),  # grass
            (0.42, 0.55, 0.18),  # young crop
            (0.49, 0.55, 0.22),  # green crop
            (0.55, 0.54, 0.26),  # ripening crop
            (0.62, 0.54, 0.30),  # ripe crop
            (0.30, 0.30, 0.18),  # forest floor
            (0.56, 0.55, 0.53),  # yard
            (0.16, 0.28, 0.36),  # water
            (0.68, 0.66, 0.62),  # pavement
            (0.34, 0.34, 0.36),  # asphalt
            (0.58, 0.47, 0.34),  # dirt
            (0.85, 0.78, 0.45),  # centre line
            (0.82, 0.82, 0.80),  # edge line
        ),
        autumn_grass=(0.55, 0.50, 0.30),
        withered_grass=(0.58, 0.50, 0.34),
        leaves=(0.20, 0.36, 0.14),
        autumn_leaves=(0.50, 0.36, 0.14),
        needles=(0.13, 0.27, 0.15),
        hall_roof=(0.62, 0.62, 0.60),
        roofs=(
            (0.60, 0.28, 0.20),
            (0.45, 0.42, 0.40),
            (0.70, 0.68, 0.65),
            (0.36, 0.27, 0.22),
            (0.50, 0.36, 0.28),
            (0.30, 0.34, 0.42),
        ),
        walls=(
            (0.80, 0.76, 0.68),
            (0.66, 0.42, 0.33),
            (0.86, 0.85, 0.82),
            (0.58, 0.60, 0.62),
            (0.72, 0.62, 0.45),
            (0.50, 0.56, 0.50),
        ),
        horizon=(0.78, 0.84, 0.90),
    ),
)
"""Green to autumnal: winding dark roads, gabled houses among trees, meadows and fields."""

ARID = Style(
    roads=Roads(spacing=38.0, shares=(0.30, 0.40, 0.10), bends=(230.0, 0.0, 0.0)),
    land_use=(0.18, 0.16, 0.08, 0.42, 0.12),
    halls=Buildings(
        cell=26.0, odds=(0.0, 0.0, 0.0, 0.02, 0.80, 0.0), side=(12.0, 18.0), height=(4.5, 9.0), clearance=1.0
    ),
    houses=Buildings(
        cell=11.0, odds=(0.10, 0.05, 0.05, 0.80, 0.45, 0.0), side=(6.0, 10.0), height=(3.0, 6.0), clearance=0.8
    ),
    plants=Plants(odds=(0.05, 0.02, 0.55, 0.08, 0.04, 0.0), lined=0.10, conifers=0.0, withering=0.75),
    parked=0.08,
    season=(0.3, 1.0),
    overcast=(0.0, 0.35),
    haze=120.0,
    gable=0.0,
    colours=Colours(
        ground=(
            (0.56, 0.50, 0.30),  # grass
            (0.24, 0.42, 0.16),  # young crop
            (0.36, 0.48, 0.18),  # green crop
            (0.66, 0.56, 0.28),  # ripening crop
            (0.80, 0.70, 0.48),  # ripe crop
            (0.40, 0.27, 0.17),  # forest floor
            (0.72, 0.65, 0.55),  # yard
            (0.18, 0.46, 0.46),  # water
            (0.60, 0.50, 0.42),  # pavement
            (0.53, 0.50, 0.47),  # asphalt
            (0.70, 0.53, 0.37),  # dirt
            (0.92, 0.91, 0.88),  # centre line
            (0.92, 0.91, 0.88),  # edge line
        ),
        autumn_grass=(0.72, 0.40, 0.24),
        withered_grass=(0.44, 0.38, 0.25),
        leaves=(0.40, 0.48, 0.32),
        autumn_leaves=(0.52, 0.52, 0.38),
        needles=(0.34, 0.44, 0.34),
        hall_roof=(0.74, 0.70, 0.64),
        roofs=(
            (0.86, 0.83, 0.76),
            (0.78, 0.66, 0.50),
            (0.70, 0.52, 0.38),
            (0.82, 0.74, 0.60),
            (0.62, 0.56, 0.50),
            (0.78, 0.46, 0.32),
        ),
        walls=(
            (0.90, 0.86, 0.78),
            (0.80, 0.66, 0.48),
            (0.72, 0.50, 0.36),
            (0.86, 0.72, 0.56),
            (0.66, 0.56, 0.46),
            (0.84, 0.80, 0.72),
        ),
        horizon=(0.90, 0.84, 0.72),
    ),
)
"""Dry: a dense grid of nearly straight, pale roads over red soil, flat roofs close together, few and dusty trees."""
