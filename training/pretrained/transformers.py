"""Initial weights of the vision transformers from files: DeiT's for TransGeo, Google's R50+ViT for L2LTR.

Both networks of a model begin with the same weights; the file's position table is resized to each input. Sources: the
releases of both models; DeiT (Touvron et al., ICML 2021), whose names timm has too; "An Image is Worth 16x16 Words"
(Dosovitskiy et al., ICLR 2021), whose files are NumPy's with the names of JAX.
"""

import re
import zipfile
from collections.abc import Mapping
from math import isqrt
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from geodtr.runtime.errors import CheckpointError, ConfigError
from geodtr.runtime.files import check_file
from geodtr.runtime.names import BRANCHES, Branch
from geodtr.runtime.spec import Preprocessing
from geodtr.training.config import TrainConfig
from geodtr.training.models.importers.l2ltr import L2LTRImporter
from geodtr.training.models.importers.transgeo import TransGeoImporter
from geodtr.training.models.importers.weights import check_tensors, read_weights
from geodtr.training.models.l2ltr import L2LTRConfig
from geodtr.training.models.registry import outline
from geodtr.training.models.transgeo.stage_1 import TransGeoConfig, grid

_LARGEST = 4 << 30
"""Bytes of a NumPy file's arrays; Google's largest hybrid takes 2 GB."""
_STRIDE = 16

_JAX = (
    (re.compile(r"^cls$"), "embeddings.cls_token"),
    (re.compile(r"^embedding/"), "embeddings.patch_embeddings."),
    (re.compile(r"^conv_root/"), "embeddings.hybrid_model.root.conv."),
    (re.compile(r"^gn_root/"), "embeddings.hybrid_model.root.gn."),
    (re.compile(r"^(block\d+)/(unit\d+)/conv_proj/"), r"embeddings.hybrid_model.body.\1.\2.downsample."),
    (re.compile(r"^(block\d+)/(unit\d+)/(\w+)/"), r"embeddings.hybrid_model.body.\1.\2.\3."),
    (re.compile(r"^Transformer/posembed_input/pos_embedding$"), "embeddings.position_embeddings"),
    (re.compile(r"^Transformer/encoder_norm/"), "encoder.encoder_norm."),
    (re.compile(r"^Transformer/encoderblock_(\d+)/LayerNorm_0/"), r"encoder.layer.\1.attention_norm_1."),
    (re.compile(r"^Transformer/encoderblock_(\d+)/LayerNorm_2/"), r"encoder.layer.\1.ffn_norm."),
    (re.compile(r"^Transformer/encoderblock_(\d+)/MlpBlock_3/Dense_0/"), r"encoder.layer.\1.ffn.fc1."),
    (re.compile(r"^Transformer/encoderblock_(\d+)/MlpBlock_3/Dense_1/"), r"encoder.layer.\1.ffn.fc2."),
    (re.compile(r"^Transformer/encoderblock_(\d+)/MultiHeadDotProductAttention_1/"), r"encoder.layer.\1.attn."),
    (re.compile(r"(kernel|scale)$"), "weight"),
    (re.compile(r"/"), "."),
)
"""Google's names -> the names of L2LTR's release."""
_CLASSIFIER = ("head/", "pre_logits/")


def transformer_weights(config: TrainConfig) -> Mapping[str, Tensor]:
    """Initial weights of a TransGeo or an L2LTR by parameter name, from the file `recipe.pretrained`.

    Raises ConfigError when no file is named or it is absent, CheckpointError when it holds other weights.
    """
    path = Path(config.recipe.pretrained)
    if not path.is_file():
        raise ConfigError(_wanted(config))
    weights = _of_vit(path, config) if isinstance(config.model, L2LTRConfig) else _of_deit(path, config)
    expected = outline(config.model, config.ground, config.aerial).state_dict()
    wrong = [name for name in expected if name not in weights]
    wrong += [name for name, tensor in weights.items() if name not in expected or expected[name].shape != tensor.shape]
    if wrong:
        raise CheckpointError(
            f"{path} holds another network than the model's: {len(wrong)} tensors are missing, unexpected or of "
            f"another shape, first {wrong[0]}. {_wanted(config)}"
        )
    return weights


def _wanted(config: TrainConfig) -> str:
    given = f"recipe.pretrained is {config.recipe.pretrained!r}; for this model it is none, or a file:"
    if isinstance(config.model, L2LTRConfig):
        return (
            f"{given} R50+ViT-B_16.npz, Google's weights of ImageNet-21k for networks of L2LTR's size. Download it on "
            "a machine with a network, gsutil cp gs://vit_models/imagenet21k/R50+ViT-B_16.npz ., and pass it: "
            "--set recipe.pretrained=R50+ViT-B_16.npz"
        )
    return (
        f"{given} DeiT-S distilled for networks of TransGeo's size, by DeiT's release or timm. On a machine with a "
        "network: python -c \"import timm, torch; torch.save(timm.create_model('deit_small_distilled_patch16_224', "
        "pretrained=True).state_dict(), 'deit.pth')\", and pass it: --set recipe.pretrained=deit.pth"
    )


def _input_of(config: TrainConfig, branch: Branch) -> Preprocessing:
    return config.ground if branch == "ground" else config.aerial


def _of_deit(path: Path, config: TrainConfig) -> Mapping[str, Tensor]:
    """The classifiers become the heads, for other sizes than theirs by the rows of the class token's, repeated.

    The table is resized bilinearly with antialiasing, as torchvision's Resize does now.
    """
    model = config.model
    assert isinstance(model, TransGeoConfig)
    content = read_weights(path)
    content = content.get("model", content) if isinstance(content, Mapping) else content
    if not isinstance(content, Mapping) or not all(isinstance(tensor, Tensor) for tensor in content.values()):
        raise CheckpointError(f"{path} does not hold tensors by name. {_wanted(config)}")
    check_tensors(content, path)
    tensors = dict(content)
    for part in ("weight", "bias"):
        rows = tensors.get(f"head.{part}")
        if rows is not None and len(rows) and len(rows) != model.descriptor_size:
            repeated = rows[torch.arange(model.descriptor_size) % len(rows)]
            tensors |= {f"head.{part}": repeated, f"head_dist.{part}": repeated}
    importer = TransGeoImporter()
    weights = dict[str, Tensor]()
    for branch, network in zip(BRANCHES, ("query_net", "reference_net"), strict=True):
        how = _input_of(config, branch)
        named = {importer.rename(f"{network}.{name}"): tensor for name, tensor in tensors.items()}
        _resize(named, f"{branch}.tokens.position", 2, grid(model.patch, how.height, how.width), align=False)
        weights |= importer.convert(named, model)
    return weights


def _of_vit(path: Path, config: TrainConfig) -> Mapping[str, Tensor]:
    """Both norms in front of the attention begin as the file's one. The table is resized with corners aligned."""
    tensors = {name: tensor for name, tensor in _read_npz(path).items() if not name.startswith(_CLASSIFIER)}
    importer = L2LTRImporter()
    weights = dict[str, Tensor]()
    for branch, network in zip(BRANCHES, ("model_grd", "model_sat"), strict=True):
        how = _input_of(config, branch)
        for name, tensor in tensors.items():
            official = name
            for pattern, replacement in _JAX:
                official = pattern.sub(replacement, official)
            names = [official, official.replace("norm_1", "norm_2")] if "attention_norm_1" in official else [official]
            for each in names:
                weights[importer.rename(f"{network}.transformer.{each}")] = _from_jax(name, tensor)
        rows, columns = -(-how.height // _STRIDE), -(-how.width // _STRIDE)
        _resize(weights, f"{branch}.tokens.position", 1, (rows, columns), align=True)
    return weights


def _from_jax(name: str, tensor: Tensor) -> Tensor:
    """Kernels [h, w, in, out] and [in, out], heads as axes of their own, and norms with axes of size 1."""
    if name.endswith("/kernel") and "MultiHead" in name:
        tensor = tensor.flatten(0, -2) if "/out/" in name else tensor.flatten(1)
    if name.endswith("/kernel"):
        return tensor.permute(3, 2, 0, 1) if tensor.ndim == 4 else tensor.T
    return tensor if name == "cls" or name.endswith("pos_embedding") else tensor.flatten()


def _resize(weights: dict[str, Tensor], name: str, learned: int, size: tuple[int, int], *, align: bool) -> None:
    """Resize a position table [1, learned + side², C], whose learned rows stay, to a grid of `size` in place."""
    table = weights.get(name)
    if table is None or table.ndim != 3 or table.shape[1] <= learned:
        return
    side = isqrt(table.shape[1] - learned)
    if side**2 != table.shape[1] - learned:
        return  # another table, which has another shape than is expected
    rows = table[:, learned:].transpose(1, 2).reshape(1, -1, side, side).float()
    resized = F.interpolate(rows, size, mode="bilinear", align_corners=align, antialias=not align)
    weights[name] = torch.cat([table[:, :learned].float(), resized.flatten(2).transpose(1, 2)], dim=1)


def _read_npz(path: Path) -> dict[str, Tensor]:
    """The arrays of a NumPy file. Raises CheckpointError when it is damaged, too large, or holds objects."""
    check_file(path, CheckpointError)
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        if size > _LARGEST:
            raise CheckpointError(f"{path} unpacks to {size:,} bytes; allowed are {_LARGEST:,}.")
        with np.load(path, allow_pickle=False) as arrays:
            return {name: torch.from_numpy(np.asarray(arrays[name], np.float32)) for name in arrays.files}
    except CheckpointError:
        raise
    except Exception as error:  # a damaged file can raise any exception
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"{path} is not a readable NumPy file of weights ({reason}).") from None
