"""Reading tensors from files that other programs wrote: PyTorch's, TensorFlow's, or safetensors.

Executes no code in them. Memory is bounded by the file's own size, not by the sizes stated in it.
"""

import pickle
import tarfile
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from geodtr.runtime.errors import CheckpointError
from geodtr.runtime.files import check_file
from geodtr.training.models.importers import tensorflow

_NUMPY = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar", "numpy.dtype")
_ARCHIVE = b"PK\x03\x04"


class _NumPyNumber:
    """Stands for a NumPy scalar, such as the best recall so far, and for its type: the value is needed by nobody."""

    def __init__(self, *parts: object) -> None:
        """Forgets them."""

    def __setstate__(self, state: object) -> None:
        """Forgets it."""


def read_weights(path: Path) -> Any:
    """What the file holds, in memory. Raises CheckpointError when it is damaged, holds code, or is packed."""
    check_file(path, CheckpointError)
    if path.suffix == tensorflow.SUFFIX:
        return tensorflow.read_variables(path)
    if index := tensorflow.index_of(path):
        raise CheckpointError(f"{path} is one part of a TensorFlow checkpoint. Give its index: {index}")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        _check_archive(path)
        numbers = torch.serialization.safe_globals([(_NumPyNumber, name) for name in _NUMPY])
        with warnings.catch_warnings(), numbers:
            warnings.simplefilter("ignore")  # PyTorch's own, of kinds of tensors that are refused by `check_tensors`
            return torch.load(path, map_location="cpu", weights_only=True)
    except CheckpointError:
        raise
    except pickle.UnpicklingError:
        raise CheckpointError(
            f"{path} is rejected: it is damaged, or contains Python code that loading would execute. Only tensors and "
            "plain values are read. Ask its author for a file with only the weights."
        ) from None
    except Exception as error:  # a damaged file can raise any exception
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"{path} is not a readable file of weights ({reason}).") from None


def check_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Raise CheckpointError for a tensor whose values are not in the file, each for itself, as plain numbers."""
    for name, tensor in tensors.items():
        kind = _strange(tensor)
        if kind is not None:
            raise CheckpointError(f"{path}: {name} is {kind}. Save plain tensors: tensor.dense().contiguous().clone().")
    holder = tensorflow.data_of(path) if path.suffix == tensorflow.SUFFIX else path
    needed, size = sum(tensor.nbytes for tensor in tensors.values()), holder.stat().st_size
    if needed > size:
        raise CheckpointError(
            f"{holder} has {size:,} bytes, and its tensors would take {needed:,} bytes: some share their values. Save "
            "each for itself: tensor.clone()."
        )


def _strange(tensor: Tensor) -> str | None:
    """Why the tensor's values are not plain numbers in the file."""
    if tensor.is_meta:
        return "without values (of the device meta)"
    if tensor.layout != torch.strided:
        return "sparse"
    if tensor.is_quantized:
        return "quantised"
    if tensor.is_complex():
        return "complex"
    if tensor.untyped_storage().nbytes() < tensor.nbytes:
        return f"expanded: {list(tensor.shape)} from {tensor.untyped_storage().nbytes():,} bytes"
    return None


def _check_archive(path: Path) -> None:
    """PyTorch packs its archives without compression, so the parts of one are never larger than the whole."""
    unpack = f"{path} is an archive of files. Unpack it, and give the checkpoint in it:"
    if tarfile.is_tarfile(path):
        raise CheckpointError(f"{unpack} tar -xf {path}")
    with path.open("rb") as file:
        if file.read(len(_ARCHIVE)) != _ARCHIVE:
            return
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        unpacked, size = sum(entry.file_size for entry in entries), path.stat().st_size
    if not any(entry.filename.endswith("data.pkl") for entry in entries):
        raise CheckpointError(f"{unpack} unzip {path}")
    if unpacked > size:
        raise CheckpointError(
            f"{path} unpacks to {unpacked:,} bytes from {size:,}. PyTorch does not compress: save it again with "
            "torch.save."
        )
