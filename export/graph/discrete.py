"""How the discrete steps of a typed graph agree with the float32 one's: information, not a verdict.

Two channels of a saliency are often closer than one INT8 step, and an arg-max that flips turns the descriptor by little
or by much: recall decides. A rounding exchanges patches of almost equal attention, and neither choice is wrong.
"""

from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geodtr.calibration.activations import open_giving
from geodtr.export.cosines import cosines
from geodtr.runtime.engines.onnxruntime import Optimisation, open_session
from geodtr.runtime.spec import INPUT, OUTPUT, Descriptors, Images

_GIVEN = "given patches"


@dataclass(frozen=True, slots=True)
class PatchAgreement:
    """Of `images`, how many keep another patch (`changed`), the share of all kept patches that are others (`others`),
    and the `smallest_cosine` of descriptors that see the patches which the float32 graph keeps.
    """

    images: int
    changed: int
    others: float
    smallest_cosine: float


def argmax_flips(exact: Any, typed: Any, images: Images, optimisation: Optimisation = "all") -> float | None:
    """Share of positions whose arg-max differs between two `ModelProto`s of one network on preprocessed `images`.

    None where the network has no arg-max.
    """
    before, after = _winners(exact, images, "all"), _winners(typed, images, optimisation)
    return None if before is None or after is None else float(np.mean(before != after))


def _winners(graph: Any, images: Images, optimisation: Optimisation) -> Any:
    names = [node.output[0] for node in graph.graph.node if node.op_type == "ArgMax"]
    if not names:
        return None
    (winners,) = open_giving(graph, names[:1], optimisation).run(names[:1], {INPUT: images})
    return winners


def compare_patches(
    exact: Any, typed: Any, images: Images, optimisation: Optimisation = "all"
) -> PatchAgreement | None:
    """Compare two `ModelProto`s of one network on preprocessed `images`. None where the network chooses no patches."""
    if _choice(exact) is None or _choice(typed) is None:
        return None
    kept, expected = _kept(exact, images, "all")
    other, _ = _kept(typed, images, optimisation)
    others = np.array([len(np.setdiff1d(before, after)) for before, after in zip(kept, other, strict=True)])
    return PatchAgreement(
        images=len(images),
        changed=int(np.count_nonzero(others)),
        others=float(others.sum() / kept.size),
        smallest_cosine=float(cosines(expected, _describe(typed, images, kept, optimisation)).min()),
    )


def _choice(graph: Any) -> Any:
    return next((node for node in graph.graph.node if node.op_type == "TopK"), None)


def _kept(graph: Any, images: Images, optimisation: Optimisation) -> tuple[NDArray[np.int64], Descriptors]:
    """The numbers of the patches that are kept, [B, kept], and the descriptors."""
    name = _choice(graph).output[1]
    kept, descriptors = open_giving(graph, [name], optimisation).run([name, OUTPUT], {INPUT: images})
    return kept, descriptors


def _describe(graph: Any, images: Images, kept: NDArray[np.int64], optimisation: Optimisation) -> Descriptors:
    """Descriptors from the given patches, regardless of those that the graph itself keeps."""
    from onnx import TensorProto, helper

    copied = deepcopy(graph)
    name = _choice(copied).output[1]
    for node in copied.graph.node:
        for index, read in enumerate(node.input):
            if read == name:
                node.input[index] = _GIVEN
    copied.graph.input.append(helper.make_tensor_value_info(_GIVEN, TensorProto.INT64, ["B", kept.shape[1]]))
    session = open_session(copied.SerializeToString(), optimisation=optimisation)
    (descriptors,) = session.run([OUTPUT], {INPUT: images, _GIVEN: kept})
    return np.asarray(descriptors, np.float32)
