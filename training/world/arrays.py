"""Array types of the generated world; B locations with N points each."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]
Bools = NDArray[np.bool_]
Codes = NDArray[np.uint8]
"""Values of one of the world's enumerations."""
Indices = NDArray[np.intp]

Positions = NDArray[np.float64]
"""World metres, [B, 2]: east, north. float64, because float32 cannot resolve centimetres 600 km from the origin."""

Generators = list[np.random.Generator]
"""One generator per pair, so that a pair does not depend on the batch it is rendered in."""
