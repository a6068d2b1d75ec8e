"""Spatial hashing: a cell of an endless lattice always draws the same random values."""

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from geodtr.training.world.arrays import Floats


class Feature(IntEnum):
    """The purpose of a draw. One list for the whole world, so that no two features share draws."""

    ROADS = 1
    LAND_USE = 2
    PLANTING = 3
    PLOUGHING = 4
    HALLS = 5
    HOUSES = 6
    TREES = 7
    MOTTLE = 8
    LEAVES = 9
    CARS_SEEN_FROM_ABOVE = 10
    CARS_SEEN_FROM_THE_ROAD = 11


def draw(key: int, feature: Feature, i: NDArray[np.integer], j: NDArray[np.integer], count: int) -> tuple[Floats, ...]:
    """`count` independent uniform values in [0, 1) for every lattice cell (i, j), in their broadcast shape.

    `key` identifies the world. Source of the hash: lowbias32, Chris Wellons' hash prospector.
    """
    cell = i.astype(np.uint32) * np.uint32(0x9E3779B1) + j.astype(np.uint32) * np.uint32(0x85EBCA77)
    return tuple(_mixed(cell, (key + 0xC2B2AE3D * (feature * 64 + number)) & 0xFFFFFFFF) for number in range(count))


def _mixed(cell: NDArray[np.uint32], salt: int) -> Floats:
    bits = cell + np.uint32(salt)
    bits ^= bits >> np.uint32(16)
    bits *= np.uint32(0x7FEB352D)
    bits ^= bits >> np.uint32(15)
    bits *= np.uint32(0x846CA68B)
    bits ^= bits >> np.uint32(16)
    # float32 holds 24 bits exactly, so the result is below 1.0.
    return (bits >> np.uint32(8)).astype(np.float32) * np.float32(2**-24)
