"""Importer for checkpoints of the official GeoDTR release; its names appear only here.

A file holds `model_state_dict` with keys `module.backbone_grd...`, `module.ge_sat...`. A JSON file beside it holds the
training options. The network is inferred from the tensors' shapes, except for the number of heads.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import msgspec
from torch import Tensor

from geodtr.runtime.documents import decode_json, read_document
from geodtr.runtime.errors import CheckpointError
from geodtr.runtime.spec import Preprocessing
from geodtr.training.models.checkpoint import check_fits, fill_strictly
from geodtr.training.models.geodtr import BackboneConfig, Count, GeoDTR, GeoDTRConfig, positions
from geodtr.training.models.weights import check_tensors, read_weights

DEFAULT_HEADS = 4
GROUND = Preprocessing(height=122, width=671)
AERIAL_POLAR = Preprocessing(height=122, width=671, polar=True)
AERIAL_SQUARE = Preprocessing(height=256, width=256)

_RENAMES = (
    (re.compile(r"^backbone_grd\."), "ground.backbone."),
    (re.compile(r"^backbone_sat\."), "aerial.backbone."),
    (re.compile(r"^ge_grd\."), "ground.layout."),
    (re.compile(r"^ge_sat\."), "aerial.layout."),
    (re.compile(r"\.tr_module\.pos_encoder\.linear$"), ".code"),
    (re.compile(r"\.tr_module\.pos_encoder\.embedding_parameter$"), ".code_bias"),
    (re.compile(r"\.tr_module\.transformer_encoder\."), ".encoder."),
)


class _Parameters(msgspec.Struct, frozen=True):
    """The release's training options that describe the network, by the release's names; others are ignored."""

    n_des: Count | None = None
    TR_heads: Count | None = None
    TR_layers: Count | None = None
    TR_dim: Count | None = None
    dropout: Annotated[float, msgspec.Meta(ge=0, lt=1)] | None = None


def import_official(path: Path, parameters: Path | None = None) -> GeoDTR:
    """Build the model of an official checkpoint and load its weights strictly, without executing code.

    `parameters` is the release's JSON of training options (see `find_parameters`), the only record of the number of
    heads. Raises CheckpointError when the file contains code, holds another model, or contradicts its parameters, and
    when no number of heads is given.
    """
    tensors = _read_state_dict(path)
    check_tensors(tensors, path)
    options = _read_parameters(parameters)
    config = _infer_config(tensors, options, path)
    grid = {"ground": tensors["ground.layout.w1"].shape[0], "aerial": tensors["aerial.layout.w1"].shape[0]}
    ground = _match_input(grid["ground"], (GROUND,), config.backbone, path)
    aerial = _match_input(grid["aerial"], (AERIAL_POLAR, AERIAL_SQUARE), config.backbone, path)
    check_fits(config, ground, aerial, {name: tensor.shape for name, tensor in tensors.items()}, path)
    model = GeoDTR(config, ground, aerial)
    fill_strictly(model, tensors, path)
    if options.TR_heads is None:
        raise CheckpointError(
            f"The number of heads of {path} is unknown: weights do not record it, and "
            + (f"{parameters} has no TR_heads." if parameters else "no *parameter.json is beside it or one folder up.")
            + ' Name the release\'s JSON with --parameters. The paper has 4 heads: a file with {"TR_heads": 4}.'
        )
    return model.eval()


def find_parameters(path: Path) -> Path | None:
    """The `*parameter.json` beside `path`, or one folder up as in the release; None if there is not exactly one."""
    here = path.resolve().parent
    folders = [files for folder in (here, here.parent) if (files := sorted(folder.glob("*parameter.json")))]
    return folders[0][0] if folders and len(folders[0]) == 1 else None


def _read_state_dict(path: Path) -> dict[str, Tensor]:
    content = read_weights(path)
    state = content.get("model_state_dict") if isinstance(content, Mapping) else None
    if not isinstance(state, Mapping):
        raise CheckpointError(f"{path} has no model_state_dict; files of the official GeoDTR release have one.")
    tensors = {}
    for name, tensor in state.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise CheckpointError(f"{path}: model_state_dict holds {name!r}, which is not a named tensor.")
        tensors[_rename(name.removeprefix("module."))] = tensor
    return tensors


def _rename(name: str) -> str:
    for pattern, replacement in _RENAMES:
        name = pattern.sub(replacement, name)
    return name


def _read_parameters(file: Path | None) -> _Parameters:
    if file is None:
        return _Parameters()
    try:
        return decode_json(read_document(file), _Parameters, strict=False)
    except OSError as error:
        raise CheckpointError(f"{file} cannot be read ({error.strerror}). Check --parameters.") from None
    except msgspec.DecodeError as error:
        raise CheckpointError(f"{file} does not hold training options as JSON: {error}. Check --parameters.") from None


def _infer_config(tensors: Mapping[str, Tensor], options: _Parameters, path: Path) -> GeoDTRConfig:
    required = ("ground.layout.w1", "aerial.layout.w1", "ground.layout.encoder.layers.0.linear1.weight")
    missing = [name for name in required if name not in tensors or tensors[name].ndim != (3 if "w1" in name else 2)]
    if missing:
        held = ", ".join(sorted({name.split(".")[0] for name in tensors})[:6]) or "nothing"
        raise CheckpointError(f"{path} is a checkpoint of another model: it holds {held}, and no {missing[0]}.")
    stages = [_stage_shape(tensors, index) for index in (3, 4, 5, 6)]
    config = GeoDTRConfig(
        backbone=BackboneConfig(
            widths=(stages[0][0], stages[1][0], stages[2][0], stages[3][0]),
            blocks=(stages[0][1], stages[1][1], stages[2][1], stages[3][1]),
        ),
        descriptors=tensors["ground.layout.w1"].shape[1],
        layers=_count(tensors, r"ground\.layout\.encoder\.layers\.(\d+)\."),
        heads=options.TR_heads or DEFAULT_HEADS,
        feed_forward=tensors["ground.layout.encoder.layers.0.linear1.weight"].shape[0],
        dropout=GeoDTRConfig().dropout if options.dropout is None else options.dropout,
    )
    inferred = {"n_des": config.descriptors, "TR_layers": config.layers, "TR_dim": config.feed_forward}
    for name, value in inferred.items():
        stated = getattr(options, name)
        if stated not in (None, value):
            raise CheckpointError(
                f"The parameters of {path} have {name} = {stated}, but its weights have {value}: the files do not "
                "match. Give the right file with --parameters."
            )
    return config


def _stage_shape(tensors: Mapping[str, Tensor], index: int) -> tuple[int, int]:
    """Width and number of blocks of one residual stage; 1 each if absent, which strict loading then reports."""
    first = tensors.get(f"ground.backbone.layers.{index}.0.conv1.weight")
    width = 1 if first is None or first.ndim == 0 else first.shape[0]
    return width, max(1, _count(tensors, rf"ground\.backbone\.layers\.{index}\.(\d+)\."))


def _count(tensors: Mapping[str, Tensor], pattern: str) -> int:
    return len({match.group(1) for name in tensors if (match := re.match(pattern, name))})


def _match_input(count: int, known: tuple[Preprocessing, ...], backbone: BackboneConfig, path: Path) -> Preprocessing:
    for preprocessing in known:
        if positions(backbone, preprocessing) == count:
            return preprocessing
    sizes = " or ".join(f"{p.height}x{p.width}" for p in known)
    raise CheckpointError(f"{path} is made for inputs with {count} feature positions; the official sizes are {sizes}.")
