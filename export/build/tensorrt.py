"""Building TensorRT plans from typed graphs, 10.3 to 11 alike.

The network is strongly typed: each tensor has the type that the graph gives it, and no flag changes one. What TensorRT
made of every operator is read back.
What stands above the calls into TensorRT is tested through a fake; none of it has run on a GPU yet.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from geodtr.export.build.builder import BuildOptions, Compiled
from geodtr.export.build.tensorrt_audit import audit
from geodtr.export.build.tensorrt_options import TensorRtOptions
from geodtr.export.build.timing_cache import TimingCache
from geodtr.export.build.watched import run_watched
from geodtr.runtime.bundle import open_bundle
from geodtr.runtime.engines.cuda import Cuda, open_cuda
from geodtr.runtime.engines.tensorrt_fit import mismatches
from geodtr.runtime.engines.tensorrt_plan import Log, load_plan, open_log
from geodtr.runtime.engines.tensorrt_versions import (
    check_installation,
    hardware_level,
    parse,
    parse_for_dla,
)
from geodtr.runtime.errors import BuildError, ConfigError
from geodtr.runtime.manifest import BackendEntry, TensorRtEntry, read_manifest
from geodtr.runtime.names import Dialect, Precision
from geodtr.runtime.progress import Track
from geodtr.runtime.spec import INPUT, BranchSpec

if TYPE_CHECKING:
    import tensorrt as trt


class TensorRtBuilder:
    """TensorRT on the GPU at hand. `notice` hears what the user should know and need not mend."""

    def __init__(self, options: BuildOptions, notice: Callable[[str], None]) -> None:
        if options.dialect not in (None, "tensorrt"):
            raise ConfigError(f"TensorRT runs no INT8 graph of the {options.dialect} dialect: leave --dialect out.")
        self._options = options.tensorrt or TensorRtOptions()
        self._notice = notice

    @property
    def dialect(self) -> Dialect:
        return "tensorrt"

    def check(self, precision: Precision) -> BackendEntry:
        version, cuda = check_installation(), open_cuda()
        if self._options.refit_from is not None:
            return self._refittable(self._options.refit_from, precision, version, cuda)
        asked = self._options
        hardware_level(asked.hardware)
        capability = parse(cuda.machine.compute_capability or "0")
        if precision == "fp8" and capability < (8, 9):
            raise ConfigError(f"fp8 needs a GPU of compute capability 8.9 or above, this one has {_dots(capability)}.")
        if asked.hardware == "ampere-or-newer" and capability < (8, 0):
            raise ConfigError(f"--hardware ampere-or-newer is built on such a GPU; this one is a {cuda.machine.gpu}.")
        if asked.dla_core is not None:
            _check_dla(asked.dla_core, precision)
        least, usual, most = asked.batches
        how = TensorRtEntry(
            min_batch=least,
            opt_batch=usual,
            max_batch=most,
            version_compatible=asked.version_compatible,
            hardware=asked.hardware,
            dla_core=asked.dla_core,
            stripped=asked.strip,
            refittable=asked.refittable,
            workspace=asked.workspace,
            optimisation_level=asked.optimisation_level,
        )
        return BackendEntry(name="tensorrt", version=version, machine=cuda.machine, tensorrt=how)

    def compile(self, graph: Path, spec: BranchSpec, precision: Precision, out: Path, *, track: Track) -> Compiled:
        backend, cuda, log = self.check(precision), open_cuda(), open_log()
        assert backend.tensorrt is not None and backend.machine is not None
        file = out / f"{spec.branch}.plan"
        if self._options.refit_from is not None:
            old = read_manifest(self._options.refit_from).engine(spec.branch).compiled
            assert old is not None
            file.write_bytes(_refitted(self._options.refit_from / old.file, graph, backend.tensorrt, cuda, log))
        else:
            cache = TimingCache(out.parent, backend.machine, backend.version)
            file.write_bytes(self._built(graph, spec, backend.tensorrt, cache, cuda, log, track))
        told = _inspected(file, graph, spec, backend.tensorrt, cuda, log)
        found = audit(told, graph, precision, f"TensorRT {backend.version}'s {spec.branch} engine")
        if found.wider:
            self._notice(
                f"TensorRT computes {len(found.wider)} operators of the {spec.branch} engine in a wider type than the "
                f"graph's: {', '.join(found.wider)}."
            )
        return Compiled(file, found.layers, found.wider)

    def _built(
        self,
        graph: Path,
        spec: BranchSpec,
        how: TensorRtEntry,
        cache: TimingCache,
        cuda: Cuda,
        log: Log,
        track: Track,
    ) -> bytes:
        """A plan of the graph. Raises BuildError with TensorRT's own words."""
        import tensorrt as trt

        builder = trt.Builder(log.logger)
        network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        parser = trt.OnnxParser(network, log.logger)
        if how.dla_core is not None:
            parse_for_dla(parser)
        if not parser.parse_from_file(str(graph)):
            faults = "; ".join(str(parser.get_error(index)) for index in range(parser.num_errors))
            raise BuildError(f"TensorRT cannot read the {spec.branch} graph: {faults or log.why}. Nothing was written.")
        config = self._configured(builder, spec, how)
        cached = how.optimisation_level != 0  # which times nothing
        if cached:
            self._use(cache, config)

        def build(monitor: "trt.IProgressMonitor") -> "trt.IHostMemory | None":
            config.progress_monitor = monitor
            with cuda.active():
                return builder.build_serialized_network(network, config)

        plan = run_watched(build, f"Building the {spec.branch} engine", track)
        if plan is None:
            raise BuildError(
                f"TensorRT could not build the {spec.branch} engine: {log.why}. Nothing was written. Where memory is "
                "short, name a smaller --max-batch or --workspace."
            )
        if cached:
            cache.write(bytes(config.get_timing_cache().serialize()))
        return bytes(plan)

    def _configured(self, builder: "trt.Builder", spec: BranchSpec, how: TensorRtEntry) -> "trt.IBuilderConfig":
        import tensorrt as trt

        config = builder.create_builder_config()
        # Rounds float32 products to ten bits of mantissa, by default: float32 is float32 here.
        config.clear_flag(trt.BuilderFlag.TF32)
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
        config.hardware_compatibility_level = hardware_level(how.hardware)
        if how.workspace is not None:
            config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, how.workspace << 20)
        if how.optimisation_level is not None:
            config.builder_optimization_level = how.optimisation_level
        if how.version_compatible:
            config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
        if how.stripped:
            config.set_flag(trt.BuilderFlag.STRIP_PLAN)
        if how.refittable:
            config.set_flag(trt.BuilderFlag.REFIT)
        elif how.stripped:
            config.set_flag(trt.BuilderFlag.REFIT_IDENTICAL)
        if how.dla_core is not None:
            config.default_device_type = trt.DeviceType.DLA
            config.DLA_core = how.dla_core
            config.set_flag(trt.BuilderFlag.GPU_FALLBACK)
        profile = builder.create_optimization_profile()
        size = (spec.preprocessing.height, spec.preprocessing.width, 3)
        profile.set_shape(INPUT, (how.min_batch, *size), (how.opt_batch, *size), (how.max_batch, *size))
        config.add_optimization_profile(profile)
        return config

    def _use(self, cache: TimingCache, config: "trt.IBuilderConfig") -> None:
        """Give the build what is known of tactics' times; start anew, and say so, where that cannot be used."""
        held = cache.read()
        if held:
            known = config.create_timing_cache(held)
            if known is not None and config.set_timing_cache(known, False):
                return
        if held != b"":
            self._notice(
                f"{cache.path} is damaged or of another machine: it is made anew, and this build takes longer."
            )
        config.set_timing_cache(config.create_timing_cache(b""), False)

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


def _check_dla(core: int, precision: Precision) -> None:
    import tensorrt as trt

    if precision == "fp32":
        raise ConfigError("A DLA computes in fp16 and int8 only: name --precision fp16, or leave --dla out.")
    log = open_log()
    builder = trt.Builder(log.logger)
    parse_for_dla(trt.OnnxParser(builder.create_network(), log.logger))
    if core >= builder.num_DLA_cores:
        raise ConfigError(f"--dla {core}: this machine has {builder.num_DLA_cores} of them. Leave it out for the GPU.")


def _refitted(plan: Path, graph: Path, how: TensorRtEntry, cuda: Cuda, log: Log) -> bytes:
    """A compiled plan with the graph's weights in the place of its own."""
    with cuda.active():
        engine = load_plan(plan.read_bytes(), how, log, graph)
        if engine is None:
            raise BuildError(
                f"{plan} does not take the weights of this model: {log.why}. Is it of the same architecture? Leave "
                "--refit-from out to compile anew."
            )
        return bytes(engine.serialize())


def _inspected(plan: Path, graph: Path, spec: BranchSpec, how: TensorRtEntry, cuda: Cuda, log: Log) -> str:
    """What TensorRT tells of a plan's layers, in JSON."""
    import tensorrt as trt

    with cuda.active():
        engine = load_plan(plan.read_bytes(), how, log, graph if how.stripped else None)
        if engine is None:
            raise BuildError(f"TensorRT refuses the plan that it has just built: {log.why}. Nothing was written.")
        # Without a batch size the inspector tells no types.
        context = engine.create_execution_context(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        context.set_input_shape(INPUT, (how.opt_batch, spec.preprocessing.height, spec.preprocessing.width, 3))
        inspector = engine.create_engine_inspector()
        inspector.execution_context = context
        return str(inspector.get_engine_information(trt.LayerInformationFormat.JSON))


def _dots(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
