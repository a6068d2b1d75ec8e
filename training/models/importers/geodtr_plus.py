"""Importer for checkpoints of the official GeoDTR+ release (TPAMI 2024).

Keys are `backbone_grd...`, `GLE_sat...`. Shapes do not tell the number of heads, whether the bottleneck is used, and
what makes a layout descriptor of it; the release's JSON of training options does.
"""

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Literal

import msgspec

from geodtr.runtime.spec import ANY_IMAGES, PANORAMAS, Imagery, Preprocessing
from geodtr.training.models.backbones.convnext import IMAGENET_MEAN, IMAGENET_STD
from geodtr.training.models.base import Count, Layers, Share
from geodtr.training.models.geodtr.geodtr_plus import ConvNextConfig, GeoDTRPlusConfig, Mask, ResidualConfig, positions
from geodtr.training.models.importers.base import (
    Importer,
    Network,
    Notice,
    Tensors,
    check_weights,
    count,
    first_size,
    match_input,
    read_parameters,
    require,
    settings_of,
)
from geodtr.training.models.importers.geodtr import NO_PARAMETERS, panoramas_of, residual_stages
from geodtr.training.models.registry import ModelConfig


def _input(height: int, width: int, polar: bool = False, imagery: Imagery = ANY_IMAGES) -> Preprocessing:
    return Preprocessing(height=height, width=width, polar=polar, mean=IMAGENET_MEAN, std=IMAGENET_STD, imagery=imagery)


GROUND = _input(122, 671, imagery=PANORAMAS)
VIGOR_GROUND = _input(320, 640, imagery=msgspec.structs.replace(PANORAMAS, aspect=2.0))
AERIAL_POLAR, AERIAL_SQUARE, VIGOR_AERIAL = _input(122, 671, polar=True), _input(256, 256), _input(320, 320)

_RENAMES = (
    (re.compile(r"^backbone_grd\."), "ground.backbone."),
    (re.compile(r"^backbone_sat\."), "aerial.backbone."),
    (re.compile(r"^GLE_grd\."), "ground.layout."),
    (re.compile(r"^GLE_sat\."), "aerial.layout."),
    (re.compile(r"\.pe\.pe$"), ".position"),
    (re.compile(r"\.layout\.transformer_encoder\."), ".layout.encoder."),
)
_BOTTLENECK = re.compile(r"(ground|aerial)\.layout\.[wb][12]")


class _Parameters(msgspec.Struct, frozen=True):
    """The release's training options that describe the network, by the release's names; others are ignored."""

    descriptors: Count | None = None
    TR_heads: Count | None = None
    TR_layers: Layers | None = None
    TR_dim: Count | None = None
    dropout: Share | None = None
    backbone: Literal["convnext", "resnet"] | None = None
    bottleneck: bool | None = None
    normalize: bool | None = None
    orthogonalize: bool | None = None
    no_polar: bool | None = None
    dataset: str | None = None


class GeoDTRPlusImporter(Importer):
    """GeoDTR+."""

    title = "GeoDTR+"
    config = GeoDTRPlusConfig
    marks = ("GLE_grd.", "GLE_sat.")
    renames = _RENAMES
    parameters = _Parameters

    def infer(self, tensors: Tensors, parameters: Path | None, path: Path, notice: Notice) -> Network:
        options = read_parameters(parameters, _Parameters)
        require(tensors, {"ground.layout.w1": 3, "aerial.layout.w1": 3}, path, self.title)
        defaults = GeoDTRPlusConfig()
        convnext = any(name.startswith("ground.backbone.net.") for name in tensors)
        feed_forward = tensors.get("ground.layout.encoder.layers.0.linear1.weight")
        config = GeoDTRPlusConfig(
            backbone=_convnext_stages(tensors) if convnext else residual_stages(tensors, ResidualConfig),
            descriptors=tensors["ground.layout.w1"].shape[0],
            layers=count(tensors, r"ground\.layout\.encoder\.layers\.(\d+)\."),
            heads=options.TR_heads or defaults.heads,
            feed_forward=defaults.feed_forward if feed_forward is None else feed_forward.shape[0],
            dropout=defaults.dropout if options.dropout is None else options.dropout,
            bottleneck=defaults.bottleneck if options.bottleneck is None else options.bottleneck,
            mask=_mask(options),
        )
        ground, aerial = (
            match_input(tensors[f"{branch}.layout.w1"].shape[1], known, partial(positions, config.backbone), path)
            for branch, known in (
                ("ground", (GROUND, VIGOR_GROUND)),
                ("aerial", (AERIAL_POLAR, AERIAL_SQUARE, VIGOR_AERIAL)),
            )
        )
        if ground != VIGOR_GROUND:
            ground = panoramas_of(options.dataset, ground, notice)
        network = Network(config, ground, aerial, unknown=_unknown(options, config, (ground, aerial), parameters, path))
        check_weights(options, self.stated(network), path)
        return network

    def stated(self, network: Network) -> Mapping[str, object]:
        config = network.config
        assert isinstance(config, GeoDTRPlusConfig), "the caller compares the kinds"
        stated: dict[str, object] = {
            "descriptors": config.descriptors,
            "TR_layers": config.layers,
            "backbone": "convnext" if isinstance(config.backbone, ConvNextConfig) else "resnet",
            "bottleneck": config.bottleneck,
            "normalize": config.mask != "sigmoid",
        }
        if config.layers:
            stated |= {"TR_dim": config.feed_forward, "TR_heads": config.heads}
        if config.mask != "sigmoid":  # the release ignores it otherwise
            stated["orthogonalize"] = config.mask == "orthogonal"
        if network.ground.shape != VIGOR_GROUND.shape:  # VIGOR's runs never use polar tiles, and do not record it
            stated["no_polar"] = not network.aerial.polar
        return stated

    def convert(self, tensors: Tensors, config: ModelConfig) -> Tensors:
        """The release keeps a bottleneck's weights where it has none."""
        if not isinstance(config, GeoDTRPlusConfig) or config.bottleneck:
            return tensors
        return {name: tensor for name, tensor in tensors.items() if not _BOTTLENECK.fullmatch(name)}


def _unknown(
    options: _Parameters,
    config: GeoDTRPlusConfig,
    inputs: tuple[Preprocessing, Preprocessing],
    parameters: Path | None,
    path: Path,
) -> str | None:
    needed = ("TR_heads", "bottleneck", "normalize") if config.layers else ("bottleneck", "normalize")
    names = [name for name in needed if getattr(options, name) is None]
    if not names:
        return None
    default = msgspec.structs.replace(
        GeoDTRPlusConfig(), heads=config.heads, bottleneck=config.bottleneck, mask=config.mask
    )
    ground, aerial = inputs
    return (
        f"{', '.join(names)} of {path} are unknown: weights do not record them, and "
        + (f"{parameters} does not." if parameters else NO_PARAMETERS)
        + " Name the release's JSON with --parameters, or the network: --preset geodtr-plus-cvusa --set "
        f"model.heads={config.heads} --set model.bottleneck={str(config.bottleneck).lower()} --set "
        f"model.mask={config.mask}{settings_of(config, default)}"
        + settings_of(ground, GROUND, "ground")
        + settings_of(aerial, AERIAL_POLAR, "aerial")
    )


def _mask(options: _Parameters) -> Mask:
    if not options.normalize:
        return "sigmoid"  # with `orthogonalize` too, which the release then ignores
    return "orthogonal" if options.orthogonalize else "normalised"


def _convnext_stages(tensors: Tensors) -> ConvNextConfig:
    """Stages 1, 3, 5 of torchvision's `features`; the modules between them are the downsampling."""
    widths = [first_size(tensors, f"ground.backbone.net.{index}.0.layer_scale") for index in (1, 3, 5)]
    blocks = [max(1, count(tensors, rf"ground\.backbone\.net\.{index}\.(\d+)\.layer_scale$")) for index in (1, 3, 5)]
    return ConvNextConfig(widths=(widths[0], widths[1], widths[2]), blocks=(blocks[0], blocks[1], blocks[2]))
