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
    # A tensor's bytes are copied whenever they are read, so their hashes stand for them.
    held = [[sha256(tensor.raw_data).digest() for tensor in model.graph.initializer] for model in models.values()]
    shared = set[bytes].intersection(*map(set, held))
    places = dict[bytes, int]()
    whole, end, unnamed = sha256(), 0, graphs[0].parent / "weights.bin"
    with unnamed.open("wb") as stream:
        # In this order, so that the same graphs give the same file.
        for key, tensor in zip(held[0], models[graphs[0]].graph.initializer, strict=True):
            content = tensor.raw_data
            if key in shared and key not in places and len(content) >= _SMALLEST:
                places[key] = end + -end % _ALIGNED
                for part in (bytes(places[key] - end), content):
                    whole.update(part)
                    end += stream.write(part)
    if not places:
        unnamed.unlink()
        return
    file = unnamed.rename(unnamed.with_name(f"weights-{whole.hexdigest()[:16]}.bin"))
    for (path, model), keys in zip(models.items(), held, strict=True):
        for key, tensor in zip(keys, model.graph.initializer, strict=True):
            if key in places:
                set_external_data(tensor, file.name, places[key], len(tensor.raw_data))
                tensor.ClearField("raw_data")
        onnx.save(model, str(path))


def weights_of(graph: Path) -> Path | None:
    """The file beside an ONNX file that holds tensors of its; None if it holds all of them itself."""
    import onnx

    model = onnx.load(str(graph), load_external_data=False)
    keys = (entry for tensor in model.graph.initializer for entry in tensor.external_data)
    name = next((entry.value for entry in keys if entry.key == "location"), None)
    return None if name is None else graph.parent / name
