"""Measure the effect of bias correction: python benchmarks/bias_correction.py BUNDLE CALIBRATION_SPEC SPEC

BUNDLE is an exported float32 bundle. Quantises all operators to INT8 in each dialect, with and without bias correction.
Prints the mean and smallest cosine with float32 over both branches, and hits at rank 1 on the pairs of SPEC.
"""

import sys
from pathlib import Path
from typing import Any

from all_int8 import open_exact

from geodtr.export.precision.int8 import Int8Quantiser, with_quantised, with_types
from geodtr.runtime.names import DIALECTS


def main(bundle: str, calibration: str, spec: str) -> None:
    exact = open_exact(Path(bundle), calibration, spec)
    print(f"float32: {exact.hits} of {len(exact.pairs)} at rank 1")
    for dialect in DIALECTS:
        print(f"{dialect:9} as rounded: {exact.quantised(dialect, as_rounded)}")
        print(f"{dialect:9} corrected:  {exact.quantised(dialect)}")


def as_rounded(quantiser: Int8Quantiser, operators: list[str]) -> Any:
    """Quantise without bias correction."""
    return with_quantised(with_types(quantiser.graph), quantiser.activations, quantiser.dialect, operators)


if __name__ == "__main__":
    main(*sys.argv[1:])
