"""Processes that share each batch: the ranks that torchrun starts, or one alone.

Every rank holds the whole model and takes its share of every micro-batch; together they do what one process would do.
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
    """This process's `number` among `count`."""

    number: int = 0
    count: int = 1

    @property
    def chief(self) -> bool:
        """Whether this is the one that writes files and speaks."""
        return self.number == 0

    @property
    def device(self) -> torch.device:
        """Where this rank works: its own GPU, or the CPU where there is none."""
        if not torch.cuda.is_available():
            return torch.device("cpu")
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))

    def share(self, rows: int) -> slice:
        """This rank's rows of a micro-batch. Raises ConfigError when it cannot be shared evenly."""
        if rows % self.count:
            raise ConfigError(
                f"A micro-batch of {rows} pairs cannot be shared evenly by {self.count} processes. Change their "
                "number, or recipe.batch_size and recipe.micro_batch."
            )
        each = rows // self.count
        return slice(self.number * each, (self.number + 1) * each)

    def gather(self, rows: Tensor) -> Tensor:
        """[b, ...] of each rank -> [B, ...] of all, in the ranks' order; carries no gradient."""
        if self.count == 1:
            return rows
        parts = [torch.empty_like(rows) for _ in range(self.count)]
        dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    def add(self, tensors: Iterable[Tensor]) -> None:
        """Replace each tensor by its sum over all ranks: in one exchange, for many small ones take long."""
        tensors = list(tensors)
        if self.count == 1 or not tensors:
            return
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        dist.all_reduce(flat)
        for tensor, total in zip(tensors, torch.split(flat, [tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(total.view_as(tensor))

    def any(self, here: bool) -> bool:
        """Whether it is so on some rank."""
        if self.count == 1:
            return here
        flag = torch.tensor(float(here), device=self.device)
        dist.all_reduce(flag)
        return bool(flag)

    def wait(self) -> None:
        """Until all ranks are here."""
        if self.count > 1:
            dist.barrier()


def is_chief() -> bool:
    """Whether this process is the one that writes files and speaks, as told before the ranks have joined."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def join_ranks() -> Iterator[Ranks]:
    """Join the group that torchrun has announced by its environment variables; a process by itself is rank 0 of 1."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield Ranks()
        return
    # Long enough for the chief to validate on a large gallery while the others wait.
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo", timeout=timedelta(hours=3))
    ranks = Ranks(dist.get_rank(), count)
    if ranks.device.type == "cuda":
        torch.cuda.set_device(ranks.device)
    try:
        yield ranks
    finally:
        dist.destroy_process_group()


def share_batch_norm(model: nn.Module, ranks: Ranks) -> None:
    """Make batch normalisation see all ranks' rows. PyTorch's own form is for GPUs alone."""
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
    """Differentiable: the gradient is summed over all ranks as well."""
    total: Tensor = all_reduce(tensor)  # type: ignore[no-untyped-call] # PyTorch left it untyped
    return total


def _convert(module: nn.Module) -> nn.Module:
    if isinstance(module, nn.BatchNorm2d):
        shared = _SharedBatchNorm(module.num_features, module.eps, module.momentum).to(module.weight)
        shared.load_state_dict(module.state_dict())
        return shared.train(module.training)
    for name, child in list(module.named_children()):
        setattr(module, name, _convert(child))
    return module
