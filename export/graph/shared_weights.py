"""Graphs of one network with two input sizes: the tensors that both hold are stored once, in a file beside them.

The file is ONNX's external data, which ONNX Runtime, OpenVINO and TensorRT's parser read. Its name has its hash, so
that a graph's hash covers its weights.
"""

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

_SMALLEST = 1024
"""Bytes of a tensor that is worth a reference."""
_ALIGNED = 64
"""Bytes; enough for every element type and vector instruction where the file is mapped to memory."""


def share_weights(graphs: Sequence[Path]) -> None:
    """Move tensors that are in each of the `graphs`, ONNX files of one folder, to a file beside them.

    Equal bytes count, not names. What only one graph holds stays in it.
    """
    import onnx
    from onnx.external_data_helper import set_external_data

    models = {path: onnx.load(str(path)) for path in graphs}
    held = [{tensor.raw_data for tensor in model.graph.initializer} for model in models.values()]
    shared = {content for content in set.intersection(*held) if len(content) >= _SMALLEST}
    places = dict[bytes, int]()
    parts, end = list[bytes](), 0
    for tensor in models[graphs[0]].graph.initializer:  # in this order, so that the same graphs give the same file
        if tensor.raw_data in shared and tensor.raw_data not in places:
            padding = -end % _ALIGNED
            places[tensor.raw_data] = end + padding
            parts += [bytes(padding), tensor.raw_data]
            end += padding + len(tensor.raw_data)
    content = b"".join(parts)
    file = graphs[0].parent / f"weights-{sha256(content).hexdigest()[:16]}.bin"
    file.write_bytes(content)
    for path, model in models.items():
        for tensor in model.graph.initializer:
            if tensor.raw_data in places:
                set_external_data(tensor, file.name, places[tensor.raw_data], len(tensor.raw_data))
                tensor.ClearField("raw_data")
        onnx.save(model, str(path))


def weights_of(graph: Path) -> Path | None:
    """The file beside an ONNX file that holds tensors of its; None if it holds all of them itself."""
    import onnx

    model = onnx.load(str(graph), load_external_data=False)
    keys = (entry for tensor in model.graph.initializer for entry in tensor.external_data)
    name = next((entry.value for entry in keys if entry.key == "location"), None)
    return None if name is None else graph.parent / name
