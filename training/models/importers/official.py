"""Import of official checkpoints: the file is read without executing code, and its keys tell whose it is.

A file holds the state dict as `model_state_dict` or `state_dict`, with keys `module....`, as two of them by branch, or
is the state dict itself. TensorFlow's are two files, of which the index is given.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from geodtr.runtime.errors import CheckpointError
from geodtr.runtime.names import BRANCHES
from geodtr.training.models.checkpoint import check_fits, fill_strictly
from geodtr.training.models.importers.base import Importer, Network, Notice, check_preset, read_parameters
from geodtr.training.models.importers.cde import CdeImporter
from geodtr.training.models.importers.cvft import CvftImporter
from geodtr.training.models.importers.dsm import DsmImporter
from geodtr.training.models.importers.fusiongan import FusionGanImporter
from geodtr.training.models.importers.geodtr import GeoDTRImporter
from geodtr.training.models.importers.geodtr_plus import GeoDTRPlusImporter
from geodtr.training.models.importers.l2ltr import L2LTRImporter
from geodtr.training.models.importers.safa import SafaImporter
from geodtr.training.models.importers.sample4geo import Sample4GeoImporter
from geodtr.training.models.importers.transgeo import TransGeoImporter
from geodtr.training.models.importers.weights import check_tensors, read_weights
from geodtr.training.models.registry import Model, build_model

IMPORTERS: tuple[Importer, ...] = (
    GeoDTRImporter(),
    GeoDTRPlusImporter(),
    Sample4GeoImporter(),
    SafaImporter(),
    L2LTRImporter(),
    TransGeoImporter(),
    CvftImporter(),
    DsmImporter(),
    CdeImporter(),
    FusionGanImporter(),
)
_STATE_DICTS = ("model_state_dict", "state_dict")
_PARTS = ("model_grd", "model_sat", "generator_model_dict", "retriebal_model_dict")
"""What files call their state dict, or the state dicts of two networks, which then begin all keys."""
_OWN = (*(f"{branch}." for branch in BRANCHES), "encoder.features.", "generator.")
"""What begins a key of this project's checkpoints: a branch, the encoder of both, or what draws tiles."""


def import_official(
    path: Path,
    parameters: Path | None = None,
    network: Network | None = None,
    notice: Notice = lambda _text: None,
    stage_1: Path | None = None,
    more: Sequence[Path] = (),
) -> Model:
    """Build the model of an official checkpoint and load its weights strictly, without executing code.

    Parameters
    ----------
    parameters
        The release's JSON of training options; by default the one that `find_parameters` finds.
    network
        The network that the file belongs to, where neither shapes nor parameters tell; without it, it is inferred.
    notice
        Called with each thing that had to be assumed.
    stage_1
        Checkpoint of the first stage, for a model that needs two: TransGeo's stage 2.
    more
        Further files of the same network: FusionGAN's stages leave one each.

    Raises
    ------
    CheckpointError
        The file contains code, holds another model, contradicts its parameters or `network`, or needs one of them.
    """
    tensors = _read_all(path, more)
    importer = _recognise(tensors, path)
    if more and not importer.in_files:
        raise CheckpointError(f"{path} is a checkpoint of {importer.title}, which is one file. Leave out {more[0]}.")
    if parameters is not None and importer.parameters is None:
        raise CheckpointError(
            f"{path} is a checkpoint of {importer.title}, whose release writes no training options: nothing in "
            f"{parameters} is read. Leave --parameters out."
        )
    parameters = parameters or find_parameters(path)
    tensors = {importer.rename(name): tensor for name, tensor in tensors.items()}
    if network is not None and not isinstance(network.config, importer.config):
        raise CheckpointError(f"{path} is a checkpoint of {importer.title}; the preset describes another model.")
    importer.refuse(tensors, network, path)
    described, network = network, network or importer.infer(tensors, parameters, path, notice)
    converted = {**importer.convert(tensors, network.config), **_first_stage(importer, network, stage_1, path)}
    shapes = {name: tensor.shape for name, tensor in converted.items()}
    check_fits(network.config, network.ground, network.aerial, shapes, path)
    model = build_model(network.config, network.ground, network.aerial)
    fill_strictly(model, converted, path)
    if described is not None and parameters is not None and importer.parameters is not None:
        check_preset(read_parameters(parameters, importer.parameters), importer.stated(described), parameters)
    if network.unknown is not None:  # last: a wrong key or parameter is the better message
        raise CheckpointError(network.unknown)
    return model.eval()


def _first_stage(importer: Importer, network: Network, stage_1: Path | None, path: Path) -> Mapping[str, Tensor]:
    """What the network takes from the file of its first stage. Raises CheckpointError when there is one too few, or
    one too many.
    """
    first = importer.first_stage(network)
    if first is None:
        if stage_1 is not None:
            raise CheckpointError(
                f"{path} is no checkpoint of TransGeo's stage 2, which alone needs another one. Leave --stage-1 out, "
                "or give stage 2's file first."
            )
        return {}
    if stage_1 is None:
        raise CheckpointError(
            f"{path} is a checkpoint of {importer.title}'s stage 2: its aerial network sees a share of the patches, "
            "which stage 1 chooses for each tile. Give stage 1's checkpoint too: --stage-1 FILE"
        )
    return importer.from_first_stage(import_official(stage_1, network=first).state_dict(), network.config)


def find_parameters(path: Path) -> Path | None:
    """The `*parameter.json` beside `path`, or one folder up as in the release; None if there is not exactly one."""
    here = path.resolve().parent
    folders = [files for folder in (here, here.parent) if (files := sorted(folder.glob("*parameter.json")))]
    return folders[0][0] if folders and len(folders[0]) == 1 else None


def _read_all(path: Path, more: Sequence[Path]) -> dict[str, Tensor]:
    """The tensors of all files. Raises CheckpointError when two files hold the same ones."""
    tensors = _read_state_dict(path)
    for file in more:
        part = _read_state_dict(file)
        both = sorted(name for name in part.keys() & tensors.keys() if part[name].ndim > 1)
        if both:
            raise CheckpointError(
                f"{file} holds {both[0]}, which another of the files holds too. Leave one of them out."
            )
        tensors |= part
    return tensors


def _read_state_dict(path: Path) -> dict[str, Tensor]:
    content = read_weights(path)
    state = _find_state_dict(content) if isinstance(content, Mapping) else None
    if not isinstance(state, Mapping):
        raise CheckpointError(f"{path} has no {' or '.join(_STATE_DICTS)}, and is no state dict itself.")
    tensors = {}
    for name, tensor in state.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise CheckpointError(
                f"{path} holds {name!r}, which is not a named tensor. Expected is a state dict, bare or as "
                f"{' or '.join(_STATE_DICTS)}."
            )
        tensors[name.removeprefix("module.")] = tensor
    if any(name.startswith(_OWN) for name in tensors):
        raise CheckpointError(
            f"{path} is a checkpoint of this toolkit, which is not imported: use it as it is. Where another file is "
            "needed beside it, or by --stage-1, that is the release's own."
        )
    check_tensors(tensors, path)
    return tensors


def _find_state_dict(content: Mapping[Any, Any]) -> Any:
    parts = {key: content[key] for key in _PARTS if isinstance(content.get(key), Mapping)}
    if parts:
        return {
            f"{key}.{str(name).removeprefix('module.')}": tensor
            for key, part in parts.items()
            for name, tensor in part.items()
        }
    return next((content[key] for key in _STATE_DICTS if key in content), content)


def _recognise(names: Mapping[str, Tensor], path: Path) -> Importer:
    for importer in IMPORTERS:
        if any(name.startswith(importer.marks) for name in names):
            return importer
    held = ", ".join(sorted({name.split(".")[0] for name in names})[:6]) or "nothing"
    known = ", ".join(importer.title for importer in IMPORTERS)
    raise CheckpointError(f"{path} is a checkpoint of another model: it holds {held}. Known are {known}.")
