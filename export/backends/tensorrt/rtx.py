"""Build plans of TensorRT-RTX: on any machine, for RTX GPUs of chosen compute capabilities.

Building needs no GPU, but loading, inspecting and running a plan needs a GPU that the plan is for. The code around
these calls is tested with a fake; it has not run on a GPU yet.
"""

import msgspec

from geodtr.export.backends.options import TensorRtRtxOptions, backend_words
from geodtr.export.backends.tensorrt.builder import PlanBuilder
from geodtr.export.backends.tensorrt.compute_capabilities import chosen
from geodtr.runtime.engines.tensorrt.cuda import find_cuda
from geodtr.runtime.engines.tensorrt.library import RTX, check_installation
from geodtr.runtime.errors import ConfigError
from geodtr.runtime.machine import this_cpu
from geodtr.runtime.manifest import BackendEntry
from geodtr.runtime.names import Precision

_NEED_A_GPU = {"--strip", "--refittable", "--refit-from"}


class RtxBuilder(PlanBuilder[TensorRtRtxOptions]):
    """TensorRT-RTX, with or without a GPU."""

    library = RTX

    def check(self, precision: Precision) -> BackendEntry:
        version, cuda, options = check_installation(self.library), find_cuda(), self._asked
        capabilities = chosen(options.compute_capabilities, precision)
        here = None if cuda is None else cuda.machine.compute_capability
        needs_gpu = [option for option in options.asked if option in _NEED_A_GPU]
        if needs_gpu and here not in capabilities:
            raise ConfigError(
                f"{', '.join(needs_gpu)}: TensorRT-RTX does that on a GPU that the plan is for ("
                f"{', '.join(capabilities)}); this machine has {'none' if here is None else f'one of {here}'}. Leave "
                "it out, or build where such a GPU and its driver are."
            )
        if options.refit_from is not None and cuda is not None:
            return self._refittable(options.refit_from, precision, version, cuda)
        return BackendEntry(
            name=self.library.backend,
            version=version,
            machine=this_cpu() if cuda is None else cuda.machine,
            tensorrt=msgspec.structs.replace(options.entry, compute_capabilities=capabilities),
            executed=here in capabilities,
            options=tuple(backend_words(options)),
        )

    def _timing_cache(self, folder: object, backend: object) -> None:
        """TensorRT-RTX does not use a timing cache."""
        del folder, backend
