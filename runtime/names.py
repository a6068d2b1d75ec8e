"""The names that users type and files hold: branches, precisions, backends. Imports nothing: --help is instant."""

from typing import Literal, get_args

Branch = Literal["ground", "aerial"]
BRANCHES: tuple[Branch, ...] = get_args(Branch)

Precision = Literal["fp32", "fp16", "int8", "fp8", "mixed"]
"""`mixed`: some blocks int8, chosen by measured recall."""
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
QUANTISED: tuple[Precision, ...] = ("int8", "fp8", "mixed")
"""Precisions that store some tensors in 8 bits."""

PrecisionAsked = Literal["fp32", "fp16", "int8", "fp8", "auto", "same"]
"""The argument of `build-engine`; auto builds a `mixed` bundle, same leaves a bundle's graphs unchanged."""


def asked_as(precision: Precision) -> PrecisionAsked:
    """What a user types to get this precision."""
    return "auto" if precision == "mixed" else precision


Backend = Literal["onnxruntime", "openvino", "tensorrt", "tensorrt-rtx"]
BACKENDS: tuple[Backend, ...] = get_args(Backend)

BackendAsked = Literal["onnxruntime", "openvino", "tensorrt", "tensorrt-rtx", "auto"]
"""The option of `build-engine`; auto selects the fastest backend that runs on this machine."""

Provider = Literal["cpu", "cuda", "tensorrt"]
"""What ONNX Runtime computes with. The other backends have one each."""

Dialect = Literal["cpu-7bit", "cpu-8bit", "tensorrt"]
"""The form of quantised graph that a target needs. CPUs: unsigned activations, and weights in 7 bits where an x86 CPU
has no VNNI; TensorRT: signed, symmetric, zero point 0."""
DIALECTS: tuple[Dialect, ...] = get_args(Dialect)

Choice = Literal["first", "random", "stratified", "coreset"]
"""Which images of a set are calibrated on."""

Method = Literal["minmax", "percentile", "entropy", "mse"]
"""How the quantised range is computed from a tensor's values."""
METHODS: tuple[Method, ...] = get_args(Method)

Hardware = Literal["same-gpu", "same-capability", "ampere-or-newer"]
"""Which GPUs a TensorRT engine may run on: the model it was built on, its compute capability, or any since Ampere."""

Storage = Literal["float32", "float16", "int8"]
"""The type in which a gallery's descriptors are searched. It always keeps float32 rows too: they rescore the
candidates."""
STORAGES: tuple[Storage, ...] = get_args(Storage)

Index = Literal["flat", "hnsw", "auto"]
"""How a gallery is searched. `flat` compares every descriptor and misses nothing. The others are Milvus's: a graph, or
the server's own choice; both may miss some of the nearest."""

MavlinkMessage = Literal["global-position-sensor", "gps-input", "odometry", "external-position"]
"""What carries a position to an autopilot."""

Verdict = Literal["passed", "failed", "undecided"]
"""The result of a parity gate. Undecided: the pairs prove neither that the engine keeps its recall nor that it does
not."""

Heading = Literal["known", "unknown"]
"""Whether panoramas of a data set are taken as they are aligned, or rolled by random angles."""

Shape = Literal["as-taken", "equirectangular"]
"""The form of images before they are checked: as the model takes them, or of the whole sphere, to be cropped."""

Mismatch = Literal["refuse", "warn"]
"""What happens to an image that the model was not trained on."""
