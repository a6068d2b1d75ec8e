"""From an ONNX file to a plan, by TensorRT or TensorRT-RTX: the network, its configuration, and the build.

The network is strongly typed: each tensor has the type that the graph gives it, and no flag changes one.
"""

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from geodtr.export.backends.tensorrt.compute_capabilities import set_targets
from geodtr.export.backends.tensorrt.watched import run_watched
from geodtr.runtime.engines.tensorrt.cuda import Cuda
from geodtr.runtime.engines.tensorrt.machine_cache import MachineCache
from geodtr.runtime.engines.tensorrt.plan import Log
from geodtr.runtime.engines.tensorrt.versions import hardware_level, parse_for_dla
from geodtr.runtime.errors import BuildError
from geodtr.runtime.manifest import TensorRtEntry
from geodtr.runtime.progress import Track
from geodtr.runtime.spec import INPUT, BranchSpec

if TYPE_CHECKING:
    import tensorrt as trt

_NO_WORKSPACE = "could not find any implementation"
"""TensorRT's message if every implementation of a layer needs more memory than it may use."""


def build_plan(
    graph: Path,
    spec: BranchSpec,
    how: TensorRtEntry,
    log: Log,
    *,
    cuda: Cuda | None,
    cache: MachineCache | None,
    notice: Callable[[str], None],
    track: Track,
) -> bytes:
    """A plan of the ONNX file `graph`. `cuda`: None where no GPU is needed. `cache`: of tactics' times, None for none;
    `notice` is called when it cannot be used. Raises BuildError with the library's own words.
    """
    api, name = log.library.trt, log.library.name
    builder, network, parser = begin(log)
    if how.dla_core is not None:
        parse_for_dla(log.library, parser)
    if not parser.parse_from_file(str(graph)):
        faults = "; ".join(str(parser.get_error(index)) for index in range(parser.num_errors))
        raise BuildError(f"{name} cannot read the {spec.branch} graph: {faults or log.why}. Nothing was written.")
    if how.expose_reductions:
        expose_reductions(network, log)
    config = _configured(builder, spec, how, log)
    if cache is not None:
        _use(cache, config, notice)

    def build(monitor: "trt.IProgressMonitor") -> "trt.IHostMemory | None":
        config.progress_monitor = monitor
        with nullcontext() if cuda is None else cuda.active():
            return builder.build_serialized_network(network, config)

    plan = run_watched(log.library, build, f"Building the {spec.branch} engine", track)
    if plan is None:
        way_out = _way_out(log, how, config.get_memory_pool_limit(api.MemoryPoolType.WORKSPACE) >> 20)
        raise BuildError(f"{name} could not build the {spec.branch} engine: {log.why}. Nothing was written. {way_out}")
    if cache is not None:
        cache.write(bytes(config.get_timing_cache().serialize()))
    return bytes(plan)


def begin(log: Log) -> "tuple[trt.Builder, trt.INetworkDefinition, trt.OnnxParser]":
    """A builder, its empty, strongly typed network, and a parser that fills it."""
    trt = log.library.trt
    builder = trt.Builder(log.logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    return builder, network, trt.OnnxParser(network, log.logger)


def expose_reductions(network: "trt.INetworkDefinition", log: Log) -> None:
    """Make what every reduction gives an output of the network; of an arg-max, that is the places."""
    trt = log.library.trt
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        if layer.type in (trt.LayerType.REDUCE, trt.LayerType.TOPK):
            tensor = layer.get_output(layer.num_outputs - 1)
            if not tensor.is_network_output:
                network.mark_output(tensor)


def _configured(builder: "trt.Builder", spec: BranchSpec, how: TensorRtEntry, log: Log) -> "trt.IBuilderConfig":
    trt = log.library.trt
    config = builder.create_builder_config()
    # Rounds float32 products to ten bits of mantissa, by default: float32 is float32 here.
    config.clear_flag(trt.BuilderFlag.TF32)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if how.hardware != "same-gpu":
        config.hardware_compatibility_level = hardware_level(log.library, how.hardware)
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
    if how.compute_capabilities:
        set_targets(config, how.compute_capabilities)
    profile = builder.create_optimization_profile()
    size = spec.preprocessing.shape
    profile.set_shape(INPUT, (how.min_batch, *size), (how.opt_batch, *size), (how.max_batch, *size))
    config.add_optimization_profile(profile)
    return config


def _use(cache: MachineCache, config: "trt.IBuilderConfig", notice: Callable[[str], None]) -> None:
    """Give the build what is known of tactics' times. Where that cannot be used, call `notice` and start without."""
    held = cache.read()
    if held:
        known = config.create_timing_cache(held)
        if known is not None and config.set_timing_cache(known, False):
            return
    if held != b"":
        notice(f"{cache.path} is damaged or of another machine: it is replaced, and this build takes longer.")
    config.set_timing_cache(config.create_timing_cache(b""), False)


def _way_out(log: Log, how: TensorRtEntry, given: int) -> str:
    """What to do after a failed build to which `given` MiB of workspace were open."""
    if not any(_NO_WORKSPACE in complaint.lower() for complaint in log.complaints):
        return "Where memory is short, name a smaller --max-batch or --workspace."
    if how.workspace is None:
        smaller = max(how.min_batch, how.max_batch // 2)
        return (
            f"That means too little workspace: all of the GPU's memory ({given} MiB) was open to one layer. End what "
            f"else uses the GPU, or name --max-batch {smaller}."
        )
    return (
        f"That means too little workspace: --workspace gave one layer {given} MiB. Name --workspace "
        f"{max(4 * given, 1024)}, or leave it out for all of the GPU's memory."
    )
