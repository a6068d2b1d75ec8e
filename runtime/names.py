"""The names that users type and files hold: branches, precisions, backends. Imports nothing: --help is instant."""

from typing import Literal, get_args

Branch = Literal["ground", "aerial"]
BRANCHES: tuple[Branch, ...] = get_args(Branch)

Precision = Literal["fp32", "fp16", "int8"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)

Backend = Literal["onnxruntime"]
BACKENDS: tuple[Backend, ...] = get_args(Backend)
