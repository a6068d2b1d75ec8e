"""What half precision beside INT8 costs: python benchmarks/half_rest.py BUNDLE CALIBRATION_SPEC SPEC

BUNDLE is an exported float32 one. All operators INT8 in TensorRT's dialect, with the rest float32 and with the rest
fp16, as build-engine writes it: mean and smallest cosine with float32 of both branches, and hits at rank 1 on the pairs
of SPEC. Computed by ONNX Runtime: it says nothing of speed.
"""

import sys
from pathlib import Path
from typing import Any

from all_int8 import open_exact

from geodtr.export.precision.int8 import Int8Quantiser, with_nodes


def main(bundle: str, calibration: str, spec: str) -> None:
    exact = open_exact(Path(bundle), calibration, spec)
    print(f"float32: {exact.hits} of {len(exact.pairs)} at rank 1")
    print(f"int8, float32 rest: {exact.quantised('tensorrt', in_float32)}")
    print(f"int8, fp16 rest:    {exact.quantised('tensorrt')}")


def in_float32(quantiser: Int8Quantiser, operators: list[str]) -> Any:
    """As build-engine does it, but for the rest."""
    return with_nodes(quantiser.corrected(operators), quantiser.activations, quantiser.dialect, operators)


if __name__ == "__main__":
    main(*sys.argv[1:])
