"""The differences between TensorRT 10.3 and 11; no other file depends on the version.

Every name outside this file exists in all versions (`make check-tensorrt`).
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from geodtr.runtime.engines.tensorrt.library import Library
from geodtr.runtime.errors import ConfigError
from geodtr.runtime.names import Hardware

if TYPE_CHECKING:
    import tensorrt as trt


def hardware_level(library: Library, hardware: Hardware) -> "trt.HardwareCompatibilityLevel":
    """Raises ConfigError when the installed version lacks the level: 10.3 has no same-capability."""
    api = library.trt
    name = {"same-gpu": "NONE", "same-capability": "SAME_COMPUTE_CAPABILITY", "ampere-or-newer": "AMPERE_PLUS"}[
        hardware
    ]
    level: trt.HardwareCompatibilityLevel | None = getattr(api.HardwareCompatibilityLevel, name, None)
    if level is None:
        raise ConfigError(
            f"TensorRT {api.__version__} cannot build for {hardware}: build on the GPU that will run the engine, "
            "or use --hardware ampere-or-newer."
        )
    return level


def parse_for_dla(library: Library, parser: "trt.OnnxParser") -> None:
    """Make the parser adjust layers for a DLA.

    Raises ConfigError for versions whose DLA takes no strongly typed networks: they need precision as a builder flag,
    which is never set here.
    """
    trt = library.trt
    flag = getattr(trt.OnnxParserFlag, "ADJUST_FOR_DLA", None)
    if flag is None:
        raise ConfigError(
            f"TensorRT {trt.__version__} runs no typed network on a DLA; 11.4 on an AGX Orin does (JetPack 7.2.2). "
            "Leave --dla out: then the GPU runs everything."
        )
    parser.set_flag(flag)


_TYPES = {"fp8": "fp8|e4m3", "int8": "int8", "bf16": "bf16|bfloat16", "fp16": "fp16|half|float16", "fp32": "fp32|float"}
"""The inspector's names of types, the narrowest first."""

_PRODUCT = re.compile(r"conv|gemm|matrixmultiply|matmul|mha|attention", re.IGNORECASE)
_MOVES = frozenset({"reformat", "noop", "constant", "shuffle", "identity", "shapehosttodevice", "signal", "wait"})
"""Types of layers that compute nothing."""


def layer_precisions(information: str) -> dict[str, int]:
    """The number of an engine's layers by precision, from its inspector's JSON.

    A matrix product counts as the narrowest type of its inputs, because an INT8 convolution may return floats. Any
    other layer counts as the wider of its inputs and outputs, so that a layer which only quantises is no INT8 layer.
    `unknown` counts layers without types, as in a plan that was built without details.
    Source: 10.x reports a tensor's type within "Format/Datatype", 11 separately from the format.
    """
    return dict(sorted(Counter(_precision(layer) for layer in _computing(information)).items()))


def operator_precisions(information: str) -> dict[str, str]:
    """The precision of each operator of the ONNX graph, by its name there, from the engine's inspector's JSON.

    If several layers name an operator, the narrowest counts, because the others may only prepare its input. Operators
    that no layer names are missing. Layers are fused: each lists its operators as metadata or, without metadata, in its
    name.
    """
    precisions = dict[str, str]()
    for layer in _computing(information):
        names = _OPERATOR.findall(str(layer.get("Metadata", ""))) or str(layer.get("Name", "")).split(" + ")
        for name in names:
            precisions[name] = min(precisions.get(name, UNKNOWN), _precision(layer), key=width)
    return precisions


UNKNOWN = "unknown"
_OPERATOR = re.compile(r"\[ONNX Layer: ([^\]]+)\]")


def width(precision: str) -> int:
    """A sort key for precisions, the narrowest first; unknown is the widest."""
    return list(_TYPES).index(precision) if precision in _TYPES else len(_TYPES)


def _computing(information: str) -> Iterator[Mapping[str, Any]]:
    """The layers that compute; in a plan that was built without details a layer is only a name, yielded as {}."""
    for layer in json.loads(information)["Layers"]:
        entry: Mapping[str, Any] = layer if isinstance(layer, dict) else {}
        if str(entry.get("LayerType", "")).lower() not in _MOVES:
            yield entry


def _precision(layer: Mapping[str, Any]) -> str:
    takes = _narrowest([*layer.get("Inputs", ()), layer.get("Weights", {})])
    gives = _narrowest(layer.get("Outputs", ()))
    known = [precision for precision in (takes, gives) if precision is not None]
    if not known:
        return UNKNOWN
    if _PRODUCT.search(f"{layer.get('LayerType', '')} {layer.get('ParameterType', '')}"):
        return known[0]
    return max(known, key=width)


def _narrowest(tensors: Iterable[Mapping[str, Any]]) -> str | None:
    """The narrowest type among the tensors' that a network computes in; uint8, int32 and bool do not count."""
    types = set[str]()
    for tensor in tensors:
        text = " ".join(str(value) for key, value in tensor.items() if re.search("type|format", key, re.IGNORECASE))
        types |= {
            name for name, words in _TYPES.items() if re.search(rf"(?<![a-z0-9])({words})(?![a-z0-9])", text, re.I)
        }
    return min(types, key=width, default=None)
