"""Run both branches of a model in parallel on a CPU: one thread per branch, each with half of the cores.

Splitting a small operator across many cores ends with a wait for the slowest core. The branches depend on each other
only in the loss, so they synchronise twice per step instead. The gain is largest on a machine that other processes use.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import nn

from geodtr.runtime.names import BRANCHES, Branch
from geodtr.training.models.base import CrossViewModel

T = TypeVar("T")


class BranchThreads:
    """Runs the work of both branches: in parallel, or one after the other if `parallel` is False."""

    def __init__(self, *, parallel: bool) -> None:
        self._cores = torch.get_num_threads()
        self._threads = dict[Branch, ThreadPoolExecutor]()
        if parallel and self._cores > 1:
            for branch in BRANCHES:
                self._threads[branch] = ThreadPoolExecutor(1, f"{branch} branch")
                self._threads[branch].submit(_use_cores, self._cores // len(BRANCHES)).result()
            torch.set_num_threads(self._cores)  # also the default for threads that start later

    @contextmanager
    def step(self) -> Iterator[None]:
        """Limit the caller to the core count of one branch for the duration of a training step."""
        if not self._threads:
            yield
            return
        torch.set_num_threads(self._cores // len(BRANCHES))
        try:
            yield
        finally:
            torch.set_num_threads(self._cores)

    def map(self, work: Callable[[Branch], T]) -> dict[Branch, T]:
        """Return the result of `work` for each branch, computed under the caller's gradient mode."""
        if not self._threads:
            return {branch: work(branch) for branch in BRANCHES}
        gradients = torch.is_grad_enabled()

        def in_thread(branch: Branch) -> T:
            with torch.set_grad_enabled(gradients):
                return work(branch)

        working = {branch: thread.submit(in_thread, branch) for branch, thread in self._threads.items()}
        wait(working.values())  # an error in one branch must not leave the other running
        return {branch: future.result() for branch, future in working.items()}


def _use_cores(count: int) -> None:
    """Let operators of this thread use `count` cores.

    The first call of get_num_threads resets the thread to the default, so it has to come before the setting.
    """
    torch.get_num_threads()
    torch.set_num_threads(count)


def can_run_in_threads(model: CrossViewModel) -> bool:
    """Whether the branches of `model` are independent.

    They are not if they share weights, to which both would add gradients at once, or if they have dropout, which draws
    from PyTorch's global generator: threads would draw in random order.
    """
    from torchvision.ops import StochasticDepth

    ground, aerial = ({id(each) for each in model.branch(branch).parameters()} for branch in BRANCHES)
    random = (module.p > 0 for module in model.modules() if isinstance(module, nn.Dropout | StochasticDepth))
    return ground.isdisjoint(aerial) and not any(random)
