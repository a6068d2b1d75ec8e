"""Building TensorRT plans from typed graphs, 10.3 to 11 alike.

What TensorRT made of every operator is read back from the plan.
What stands above the calls into TensorRT is tested through a fake; none of it has run on a GPU yet.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Generic, TypeVar

from geodtr.export.backends.base import Compiled
from geodtr.export.backends.options import PlanOptions, TensorRtOptions, backend_words
from geodtr.export.backends.tensorrt.audit import audit
from geodtr.export.backends.tensorrt.network import build_plan
from geodtr.runtime.bundle import open_bundle
from geodtr.runtime.engines.tensorrt.compatibility import mismatches
from geodtr.runtime.engines.tensorrt.cuda import Cuda, open_cuda
from geodtr.runtime.engines.tensorrt.library import TENSORRT, Library, check_installation, dots, parse
from geodtr.runtime.engines.tensorrt.machine_cache import MachineCache, timing_cache
from geodtr.runtime.engines.tensorrt.plan import Log, load_plan, open_log
from geodtr.runtime.engines.tensorrt.versions import hardware_level, parse_for_dla
from geodtr.runtime.errors import ArgumentError, BuildError, ConfigError
from geodtr.runtime.manifest import BackendEntry, TensorRtEntry, read_manifest
from geodtr.runtime.names import Dialect, Precision
from geodtr.runtime.progress import Track
from geodtr.runtime.spec import INPUT, BranchSpec

Options = TypeVar("Options", bound=PlanOptions)


class PlanBuilder(ABC, Generic[Options]):
    """What building with TensorRT and with TensorRT-RTX has in common. `notice` is called with what the user should
    know and need not mend.
    """

    library: Library
    dialect: Dialect = "tensorrt"

    def __init__(self, options: Options, dialect: Dialect | None, notice: Callable[[str], None]) -> None:
        if dialect not in (None, "tensorrt"):
            raise ConfigError(f"{self.library.name} runs no INT8 graph of the {dialect} dialect: leave --dialect out.")
        self._asked = options
        self._notice = notice

    @abstractmethod
    def check(self, precision: Precision) -> BackendEntry: ...

    def compile(self, graph: Path, spec: BranchSpec, precision: Precision, out: Path, *, track: Track) -> Compiled:
        backend, log = self.check(precision), open_log(self.library)
        cuda = open_cuda() if backend.executed else None
        assert backend.tensorrt is not None and backend.machine is not None
        file = out / f"{spec.branch}.{self.library.suffix}"
        if self._asked.refit_from is not None:
            old = read_manifest(self._asked.refit_from).engine(spec.branch).compiled
            assert old is not None and cuda is not None
            file.write_bytes(_refitted(self._asked.refit_from / old.file, graph, backend.tensorrt, cuda, log))
        else:
            cache = self._timing_cache(out.parent, backend)
            plan = build_plan(
                graph, spec, backend.tensorrt, log, cuda=cuda, cache=cache, notice=self._notice, track=track
            )
            file.write_bytes(plan)
        if cuda is None:
            return Compiled(file, {})
        information = _inspected(file, graph, spec, backend.tensorrt, cuda, log)
        result = audit(information, graph, precision, f"{self.library.name} {backend.version}'s {spec.branch} engine")
        if result.wider:
            self._notice(
                f"{self.library.name} computes {len(result.wider)} operators of the {spec.branch} engine in a wider "
                f"type than the graph's: {', '.join(result.wider)}."
            )
        return Compiled(file, result.layers, result.wider)

    def another_way(self, fault: str) -> "PlanBuilder[Options] | None":
        if self._asked.expose_reductions or self._asked.refit_from is not None:
            return None
        self._notice(
            f"{fault} TensorRT 11.2 is known to compile what it fuses across reductions wrongly: building once more "
            "with --expose-reductions."
        )
        return type(self)(replace(self._asked, expose_reductions=True), None, self._notice)

    def _timing_cache(self, folder: Path, backend: BackendEntry) -> MachineCache | None:
        assert backend.tensorrt is not None and backend.machine is not None
        if backend.tensorrt.optimisation_level == 0:  # which times nothing
            return None
        return timing_cache(folder, backend.machine, backend.version)

    def _refittable(self, source: Path, precision: Precision, version: str, cuda: Cuda) -> BackendEntry:
        manifest = open_bundle(source).manifest
        how = manifest.backend.tensorrt
        if how is None or not how.refittable:
            raise ConfigError(f"{source} holds no plans built with --refittable: build that bundle with it first.")
        if manifest.precision != precision:
            raise ConfigError(f"{source} is {manifest.precision}: name --precision {manifest.precision}.")
        if wrong := mismatches(manifest.backend, version, cuda.machine):
            raise ConfigError(f"{source} cannot be refitted here: {'; '.join(wrong)}. Leave --refit-from out.")
        return manifest.backend


class TensorRtBuilder(PlanBuilder[TensorRtOptions]):
    """TensorRT on the GPU at hand."""

    library = TENSORRT

    def check(self, precision: Precision) -> BackendEntry:
        version, cuda, options = check_installation(self.library), open_cuda(), self._asked
        if options.refit_from is not None:
            return self._refittable(options.refit_from, precision, version, cuda)
        hardware_level(self.library, options.hardware)
        capability = parse(cuda.machine.compute_capability or "0")
        if precision == "fp8" and capability < (8, 9):
            raise ConfigError(f"fp8 needs a GPU of compute capability 8.9 or above, this one has {dots(capability)}.")
        if options.hardware == "ampere-or-newer" and capability < (8, 0):
            fault = f"is ampere-or-newer, which is built on such a GPU; this one is a {cuda.machine.gpu}."
            raise ArgumentError("hardware", fault)
        if options.dla_core is not None:
            _check_dla(options.dla_core, precision)
        return BackendEntry(
            name=self.library.backend,
            version=version,
            machine=cuda.machine,
            tensorrt=options.entry,
            options=tuple(backend_words(options)),
        )


def _check_dla(core: int, precision: Precision) -> None:
    if precision == "fp32":
        raise ArgumentError("dla_core", "computes in fp16 and int8 only: name one of them, or leave it out.")
    trt, log = TENSORRT.trt, open_log(TENSORRT)
    builder = trt.Builder(log.logger)
    network = builder.create_network()
    parse_for_dla(TENSORRT, trt.OnnxParser(network, log.logger))
    if core >= builder.num_DLA_cores:
        fault = f"is {core}, and this machine has {builder.num_DLA_cores} of them. Leave it out for the GPU."
        raise ArgumentError("dla_core", fault)


def _refitted(plan: Path, graph: Path, how: TensorRtEntry, cuda: Cuda, log: Log) -> bytes:
    """A compiled plan with the graph's weights in the place of its own."""
    with cuda.active():
        engine = load_plan(plan.read_bytes(), how, log, graph)
        if engine is None:
            raise BuildError(
                f"{plan} does not take the weights of this model: {log.why}. Is it of the same architecture? Leave "
                "--refit-from out to compile again."
            )
        return bytes(engine.serialize())


def _inspected(plan: Path, graph: Path, spec: BranchSpec, how: TensorRtEntry, cuda: Cuda, log: Log) -> str:
    """What the library reports of a plan's layers, in JSON."""
    trt = log.library.trt
    with cuda.active():
        engine = load_plan(plan.read_bytes(), how, log, graph if how.stripped else None)
        if engine is None:
            raise BuildError(
                f"{log.library.name} refuses the plan that it has just built: {log.why}. Nothing was written."
            )
        # Without a batch size the inspector reports no types.
        context = engine.create_execution_context(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        context.set_input_shape(INPUT, (how.opt_batch, *spec.preprocessing.shape))
        inspector = engine.create_engine_inspector()
        inspector.execution_context = context
        return str(inspector.get_engine_information(trt.LayerInformationFormat.JSON))
