"""Both branches of a model at once on a CPU: a thread for each, with half of the cores.

A small operator shared out among many cores ends with a wait for the slowest. The two branches meet only in the loss,
so they wait for each other twice a step instead. On a machine that other processes use as well, that is the difference
between a share of the speed and none.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import nn

from geodtr.runtime.names import BRANCHES, Branch

T = TypeVar("T")


class BranchThreads:
    """Runs work of both branches; `parallel` is False where the branches have to take turns."""

    def __init__(self, *, parallel: bool) -> None:
        self._cores = torch.get_num_threads()
        self._threads = dict[Branch, ThreadPoolExecutor]()
        if parallel and self._cores > 1:
            for branch in BRANCHES:
                self._threads[branch] = ThreadPoolExecutor(1, f"{branch} branch")
                self._threads[branch].submit(_use_cores, self._cores // len(BRANCHES)).result()
            torch.set_num_threads(self._cores)  # the default of threads to come, too

    @contextmanager
    def step(self) -> Iterator[None]:
        """A training step: what the caller computes between the branches' work uses as many cores as one of them."""
        if not self._threads:
            yield
            return
        torch.set_num_threads(self._cores // len(BRANCHES))
        try:
            yield
        finally:
            torch.set_num_threads(self._cores)

    def map(self, work: Callable[[Branch], T]) -> dict[Branch, T]:
        """What `work` gives for each branch, under the caller's gradient mode."""
        if not self._threads:
            return {branch: work(branch) for branch in BRANCHES}
        gradients = torch.is_grad_enabled()

        def in_thread(branch: Branch) -> T:
            with torch.set_grad_enabled(gradients):
                return work(branch)

        working = {branch: thread.submit(in_thread, branch) for branch, thread in self._threads.items()}
        wait(working.values())  # before an error ends the step: nothing of it must go on
        return {branch: future.result() for branch, future in working.items()}


def _use_cores(count: int) -> None:
    """Let operators of this thread use `count` cores. PyTorch sets a thread's number to the default when first asked
    for it, and would undo what was set before.
    """
    torch.get_num_threads()
    torch.set_num_threads(count)


def draws_while_training(model: nn.Module) -> bool:
    """Whether `model` has dropout, which draws from PyTorch's one generator: in threads, in no fixed order."""
    return any(isinstance(module, nn.Dropout) and module.p > 0 for module in model.modules())
