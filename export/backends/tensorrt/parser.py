"""Whether TensorRT's parser accepts a graph: asked of the parser itself where TensorRT-RTX is installed."""

from importlib.resources import files
from typing import Any

from geodtr.export.backends.tensorrt.network import begin
from geodtr.export.graph.structure import GraphError
from geodtr.runtime.engines.tensorrt.library import RTX
from geodtr.runtime.engines.tensorrt.plan import open_log


def check_operators(graph: Any) -> None:
    """Raise GraphError when TensorRT's parser does not take the graph: by its own word where TensorRT-RTX is installed,
    whose parser is the same one and needs no GPU; else when an operator is not on the list of those it knows.
    """
    faults = parser_faults(graph.SerializeToString())
    if faults is not None:
        if faults:
            raise GraphError(f"TensorRT's parser does not take the graph: {'; '.join(faults)}")
        return
    lines = files(__package__).joinpath("operators.txt").read_text().splitlines()
    known = {name for line in lines if not line.startswith("#") for name in line.split()}
    foreign = sorted(
        {
            f"{node.domain or 'ai.onnx'}.{node.op_type}"
            for node in graph.graph.node
            if node.domain not in ("", "ai.onnx") or node.op_type not in known
        }
    )
    if foreign:
        raise GraphError(f"the graph uses operators that TensorRT's parser does not take: {', '.join(foreign)}")


def parser_faults(graph: bytes) -> list[str] | None:
    """What NVIDIA's parser has against a serialised ONNX graph, in its own words; None where TensorRT-RTX is not
    installed, or not whole.
    """
    if not RTX.is_there:
        return None
    try:
        log = open_log(RTX)
    except ImportError:
        return None
    _builder, _network, parser = begin(log)  # the parser holds no reference of its own to the network
    if parser.supports_model_v2(graph):
        return []
    return [str(parser.get_error(index)) for index in range(parser.num_errors)] or [log.why]
