"""Compare float32 and FP16 as fallback precision of INT8: python benchmarks/fallback.py BUNDLE CALIBRATION_SPEC SPEC

BUNDLE is an exported float32 bundle. Quantises all operators to INT8 in TensorRT's dialect, with fallback precision
float32 and FP16, which build-engine uses. Prints the mean and smallest cosine with float32 over both branches, and hits
at rank 1 on the pairs of SPEC. Runs on ONNX Runtime, so it does not measure speed.
"""

import sys
from pathlib import Path
from typing import Any

from all_int8 import open_exact

from geodtr.export.precision.int8 import Int8Quantiser, with_nodes


def main(bundle: str, calibration: str, spec: str) -> None:
    exact = open_exact(Path(bundle), calibration, spec)
    print(f"float32: {exact.hits} of {len(exact.pairs)} at rank 1")
    print(f"int8, fallback float32: {exact.quantised('tensorrt', in_float32)}")
    print(f"int8, fallback fp16:    {exact.quantised('tensorrt')}")


def in_float32(quantiser: Int8Quantiser, operators: list[str]) -> Any:
    """Quantise as build-engine does, but with fallback precision float32."""
    return with_nodes(quantiser.corrected(operators), quantiser.activations, quantiser.dialect, operators)


if __name__ == "__main__":
    main(*sys.argv[1:])
