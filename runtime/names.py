"""The names that users type and files hold: branches, precisions, backends. Imports nothing: --help is instant."""

from typing import Literal, get_args

Branch = Literal["ground", "aerial"]
BRANCHES: tuple[Branch, ...] = get_args(Branch)

Precision = Literal["fp32", "fp16", "int8", "fp8", "mixed"]
"""`mixed`: some blocks int8, chosen by measured recall."""
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
QUANTISED: tuple[Precision, ...] = ("int8", "fp8", "mixed")
"""Those of which some tensors are rounded to 8 bits."""

PrecisionAsked = Literal["fp32", "fp16", "int8", "fp8", "auto", "same"]
"""What `build-engine` is asked for; auto makes a `mixed` bundle, same leaves a bundle's graphs as they are."""


def asked_as(precision: Precision) -> PrecisionAsked:
    """What a user types to get this precision."""
    return "auto" if precision == "mixed" else precision


Backend = Literal["onnxruntime", "openvino", "tensorrt", "tensorrt-rtx"]
BACKENDS: tuple[Backend, ...] = get_args(Backend)

BackendAsked = Literal["onnxruntime", "openvino", "tensorrt", "tensorrt-rtx", "auto"]
"""What `build-engine` is asked for; auto keeps the fastest backend of those that run on this machine."""

Provider = Literal["cpu", "cuda", "tensorrt"]
"""What ONNX Runtime computes with. The other backends have one each."""

Dialect = Literal["cpu-7bit", "cpu-8bit", "tensorrt"]
"""How a target wants its quantised graph. CPUs: unsigned activations, and weights in 7 bits where the CPU has no VNNI;
TensorRT: signed, symmetric, zero point 0."""
DIALECTS: tuple[Dialect, ...] = get_args(Dialect)

Choice = Literal["first", "random", "stratified", "coreset"]
"""Which images of a set are calibrated on."""

Method = Literal["minmax", "percentile", "entropy", "mse"]
"""How a tensor's values make the range that is quantised."""
METHODS: tuple[Method, ...] = get_args(Method)

Hardware = Literal["same-gpu", "same-capability", "ampere-or-newer"]
"""Which GPUs a TensorRT engine may run on: the model it was built on, its compute capability, or any since Ampere."""

Storage = Literal["float32", "float16", "int8"]
"""What a gallery's descriptors are searched in. Float32 rows are kept in any case: they score the shortlist."""
STORAGES: tuple[Storage, ...] = get_args(Storage)

Index = Literal["flat", "hnsw", "auto"]
"""How a gallery is searched. `flat`: every descriptor is looked at, so that nothing is missed. The others are Milvus's:
a graph, or what the server takes by itself; both may miss some of the nearest."""

MavlinkMessage = Literal["global-position-sensor", "gps-input", "odometry", "external-position"]
"""What carries a position to an autopilot."""

Verdict = Literal["passed", "failed", "undecided"]
"""Of a parity gate. Undecided: the pairs prove neither that the engine keeps its recall nor that it does not."""
