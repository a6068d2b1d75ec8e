"""Data-parallel training: the ranks that torchrun starts, or a single process.

Every rank holds the whole model and processes its share of each micro-batch. The result equals a single process's.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce

from geodtr.runtime.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Ranks:
    """The rank `number` of this process among `count` processes."""

    number: int = 0
    count: int = 1

    @property
    def is_rank_zero(self) -> bool:
        """Whether this rank writes files and prints."""
        return self.number == 0

    @property
    def device(self) -> torch.device:
        """This rank's GPU, or the CPU if there is none."""
        if not torch.cuda.is_available():
            return torch.device("cpu")
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))

    def share(self, rows: int) -> slice:
        """This rank's rows of a micro-batch. Raises ConfigError when the rows do not divide evenly."""
        if rows % self.count:
            raise ConfigError(
                f"A micro-batch of {rows} pairs cannot be divided evenly among {self.count} processes. Change the "
                "number of processes, or recipe.batch_size and recipe.micro_batch."
            )
        each = rows // self.count
        return slice(self.number * each, (self.number + 1) * each)

    def gather(self, rows: Tensor) -> Tensor:
        """[b, ...] of each rank -> [B, ...] of all ranks, in rank order, without gradient."""
        if self.count == 1:
            return rows
        parts = [torch.empty_like(rows) for _ in range(self.count)]
        dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    def add(self, tensors: Iterable[Tensor]) -> None:
        """Replace each tensor by its sum over all ranks. One all-reduce for all: many small ones are slow."""
        tensors = list(tensors)
        if self.count == 1 or not tensors:
            return
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        dist.all_reduce(flat)
        for tensor, total in zip(tensors, torch.split(flat, [tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(total.view_as(tensor))

    def any(self, here: bool) -> bool:
        """Whether `here` is true on at least one rank."""
        if self.count == 1:
            return here
        flag = torch.tensor(float(here), device=self.device)
        dist.all_reduce(flag)
        return bool(flag)

    def wait(self) -> None:
        """Block until all ranks reach this call."""
        if self.count > 1:
            dist.barrier()


def is_rank_zero() -> bool:
    """Whether this process writes files and prints. Works before `join_ranks`."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def join_ranks() -> Iterator[Ranks]:
    """Join the process group that torchrun's environment variables describe; without them, be rank 0 of 1."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield Ranks()
        return
    # Long enough for rank 0 to validate on a large gallery while the others wait.
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo", timeout=timedelta(hours=3))
    ranks = Ranks(dist.get_rank(), count)
    if ranks.device.type == "cuda":
        torch.cuda.set_device(ranks.device)
    try:
        yield ranks
    finally:
        dist.destroy_process_group()


def share_batch_norm(model: nn.Module, ranks: Ranks) -> None:
    """Make batch normalisation use the rows of all ranks. PyTorch's SyncBatchNorm needs a GPU."""
    if ranks.count == 1:
        return
    convert = nn.SyncBatchNorm.convert_sync_batchnorm if ranks.device.type == "cuda" else _convert
    for name, child in list(model.named_children()):
        setattr(model, name, convert(child))


class _SharedBatchNorm(nn.BatchNorm2d):
    """Batch normalisation over the rows of all ranks, on any device."""

    def forward(self, features: Tensor) -> Tensor:
        if not self.training or self.running_mean is None or self.running_var is None or self.momentum is None:
            return super().forward(features)
        wide = features.to(torch.promote_types(features.dtype, torch.float32))
        count = wide.shape[0] * wide.shape[2] * wide.shape[3] * dist.get_world_size()
        mean = _sum_over_ranks(wide.sum(dim=(0, 2, 3))) / count
        centred = wide - mean[:, None, None]
        variance = _sum_over_ranks(centred.square().sum(dim=(0, 2, 3))) / count
        with torch.no_grad():
            if self.num_batches_tracked is not None:
                self.num_batches_tracked.add_(1)
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        normalised: Tensor = centred * scale[:, None, None] + self.bias[:, None, None]
        return normalised.to(features.dtype)


def _sum_over_ranks(tensor: Tensor) -> Tensor:
    """Differentiable; the gradient is also summed over all ranks."""
    total: Tensor = all_reduce(tensor)  # type: ignore[no-untyped-call] # untyped in PyTorch
    return total


def _convert(module: nn.Module) -> nn.Module:
    if isinstance(module, nn.BatchNorm2d):
        shared = _SharedBatchNorm(module.num_features, module.eps, module.momentum).to(module.weight)
        shared.load_state_dict(module.state_dict())
        shared.weight, shared.bias = module.weight, module.bias  # the same parameters, frozen or not
        return shared.train(module.training)
    for name, child in list(module.named_children()):
        setattr(module, name, _convert(child))
    return module
