"""What differs between TensorRT 10.3 and 11: nothing else asks for a version.

Every name outside this file exists in all of them (`make check-tensorrt`).
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
    """Raises ConfigError when the installed version has no such level: same-capability came after 10.3."""
    api = library.trt
    name = {"same-gpu": "NONE", "same-capability": "SAME_COMPUTE_CAPABILITY", "ampere-or-newer": "AMPERE_PLUS"}[
        hardware
    ]
    level: trt.HardwareCompatibilityLevel | None = getattr(api.HardwareCompatibilityLevel, name, None)
    if level is None:
        raise ConfigError(
            f"TensorRT {api.__version__} cannot build for {hardware}: build on the very GPU that will run the engine, "
            "or name --hardware ampere-or-newer."
        )
    return level


def parse_for_dla(library: Library, parser: "trt.OnnxParser") -> None:
    """Let the parser shape layers for a DLA. Raises ConfigError before the version from which a DLA takes networks
    whose types are their own: earlier ones want precision as a flag, which is never set here.
    """
    trt = library.trt
    flag = getattr(trt.OnnxParserFlag, "ADJUST_FOR_DLA", None)
    if flag is None:
        raise ConfigError(
            f"TensorRT {trt.__version__} runs no typed network on a DLA; 11.4 on an AGX Orin does (JetPack 7.2.2). "
            "Leave --dla out: the GPU runs everything then."
        )
    parser.set_flag(flag)


_TYPES = {"fp8": "fp8|e4m3", "int8": "int8", "bf16": "bf16|bfloat16", "fp16": "fp16|half|float16", "fp32": "fp32|float"}
"""How the inspector names types, the narrowest first."""

_PRODUCT = re.compile(r"conv|gemm|matrixmultiply|matmul|mha|attention", re.IGNORECASE)
_MOVES = frozenset({"reformat", "noop", "constant", "shuffle", "identity", "shapehosttodevice", "signal", "wait"})
"""Kinds of layers that compute nothing."""


def layer_precisions(information: str) -> dict[str, int]:
    """How many layers of an engine compute in which precision, from what its inspector tells in JSON.

    A product computes in the narrowest type it takes, whatever it gives: an INT8 convolution may give floats. Any other
    layer in the wider of what it takes and gives: one that merely quantises is no INT8 layer. `unknown` counts those
    whose types are not told, as in a plan that was built without details.
    Source: 10.x tells a tensor's type within "Format/Datatype", 11 apart from its format.
    """
    return dict(sorted(Counter(_precision(layer) for layer in _computing(information)).items()))


def operator_precisions(information: str) -> dict[str, str]:
    """In what precision an engine computes the operators of the ONNX graph, by their names there, from what its
    inspector tells in JSON: the narrowest of the layers that name an operator, for a layer may merely prepare it.

    Operators that no layer names are not there. Layers are fused: each lists all of its operators as metadata, or,
    where it has none, in its own name.
    """
    found = dict[str, str]()
    for layer in _computing(information):
        names = _OPERATOR.findall(str(layer.get("Metadata", ""))) or str(layer.get("Name", "")).split(" + ")
        for name in names:
            found[name] = min(found.get(name, UNKNOWN), _precision(layer), key=width)
    return found


UNKNOWN = "unknown"
_OPERATOR = re.compile(r"\[ONNX Layer: ([^\]]+)\]")


def width(precision: str) -> int:
    """Orders precisions, the narrowest first; unknown is the widest."""
    return list(_TYPES).index(precision) if precision in _TYPES else len(_TYPES)


def _computing(information: str) -> Iterator[Mapping[str, Any]]:
    """The layers that compute anything; one of a plan that was built without details is a name, and told as nothing."""
    for layer in json.loads(information)["Layers"]:
        told: Mapping[str, Any] = layer if isinstance(layer, dict) else {}
        if str(told.get("LayerType", "")).lower() not in _MOVES:
            yield told


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
    """The narrowest type that a network computes in among the tensors'; others (uint8, int32, bool) do not count."""
    found = set[str]()
    for tensor in tensors:
        text = " ".join(str(value) for key, value in tensor.items() if re.search("type|format", key, re.IGNORECASE))
        found |= {
            name for name, words in _TYPES.items() if re.search(rf"(?<![a-z0-9])({words})(?![a-z0-9])", text, re.I)
        }
    return min(found, key=width, default=None)
