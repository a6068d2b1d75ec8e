"""Names for the arrays of the generated world; B places, N points a place."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]
Bools = NDArray[np.bool_]
Codes = NDArray[np.uint8]
"""Values of one of the world's enumerations."""
Indices = NDArray[np.intp]

Positions = NDArray[np.float64]
"""World metres, [B, 2]: east, north. float64, because float32 has no centimetres left 600 km from the origin."""

Chance = list[np.random.Generator]
"""One generator a pair, so that a pair looks the same whatever it is rendered together with."""
