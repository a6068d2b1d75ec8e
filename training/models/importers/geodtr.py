"""Importer for checkpoints of the official GeoDTR release (AAAI 2023).

Keys are `backbone_grd...`, `ge_sat...`. The network is inferred from the tensors' shapes, except for the number of
heads.
"""

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TypeVar

import msgspec

from geodtr.runtime.spec import PANORAMAS, Preprocessing
from geodtr.training.models.base import Count, Layers, Share
from geodtr.training.models.geodtr.geodtr import BackboneConfig, GeoDTRConfig, positions
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
)

GROUND = Preprocessing(height=122, width=671, imagery=PANORAMAS)
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
NO_PARAMETERS = "there is no *parameter.json beside it or one folder up, or more than one."
"""What messages call what `find_parameters` does not find."""
_FEED_FORWARD = "ground.layout.encoder.layers.0.linear1.weight"

B = TypeVar("B", bound=BackboneConfig)


class _Parameters(msgspec.Struct, frozen=True):
    """The release's training options that describe the network, by the release's names; others are ignored.

    `pt`: whether tiles are polar-transformed; the script's help states the opposite.
    """

    n_des: Count | None = None
    TR_heads: Count | None = None
    TR_layers: Layers | None = None
    TR_dim: Count | None = None
    dropout: Share | None = None
    pt: bool | None = None
    dataset: str | None = None


class GeoDTRImporter(Importer):
    """GeoDTR."""

    title = "GeoDTR"
    config = GeoDTRConfig
    marks = ("ge_grd.", "ge_sat.")
    renames = _RENAMES
    parameters = _Parameters

    def infer(self, tensors: Tensors, parameters: Path | None, path: Path, notice: Notice) -> Network:
        options = read_parameters(parameters, _Parameters)
        require(tensors, {"ground.layout.w1": 3, "aerial.layout.w1": 3}, path, self.title)
        defaults = GeoDTRConfig()
        layers = count(tensors, r"ground\.layout\.encoder\.layers\.(\d+)\.")
        config = GeoDTRConfig(
            backbone=residual_stages(tensors, BackboneConfig),
            descriptors=tensors["ground.layout.w1"].shape[1],
            layers=layers,
            heads=options.TR_heads or defaults.heads,
            feed_forward=first_size(tensors, _FEED_FORWARD) if layers else defaults.feed_forward,
            dropout=defaults.dropout if options.dropout is None else options.dropout,
        )
        count_positions = partial(positions, config.backbone)
        ground, aerial = (tensors[f"{branch}.layout.w1"].shape[0] for branch in ("ground", "aerial"))
        network = Network(
            config,
            panoramas_of(options.dataset, match_input(ground, (GROUND,), count_positions, path), notice),
            match_input(aerial, (AERIAL_POLAR, AERIAL_SQUARE), count_positions, path),
            unknown=_unknown_heads(parameters, path) if layers and options.TR_heads is None else None,
        )
        check_weights(options, self.stated(network), path)
        return network

    def stated(self, network: Network) -> Mapping[str, object]:
        config = network.config
        assert isinstance(config, GeoDTRConfig), "the caller compares the kinds"
        transformer = {"TR_heads": config.heads, "TR_dim": config.feed_forward} if config.layers else {}
        return {
            "n_des": config.descriptors,
            "TR_layers": config.layers,
            "pt": network.aerial.polar,
            **transformer,
        }


def panoramas_of(dataset: str | None, ground: Preprocessing, notice: Notice) -> Preprocessing:
    """`ground` for the panoramas of the release's `dataset`: of CVACT's, it cuts the sky and the street off."""
    if dataset is None:
        notice(
            "the file does not tell of which data set it is: whole panoramas, as CVUSA's, were assumed. For CVACT's: "
            '--parameters FILE.json, with "dataset": "CVACT" in it'
        )
    if dataset != "CVACT":
        return ground
    imagery = msgspec.structs.replace(ground.imagery, aspect=2.0)
    return msgspec.structs.replace(ground, rows=(0.25, 0.75), resize="area", imagery=imagery)


def _unknown_heads(parameters: Path | None, path: Path) -> str:
    return (
        f"The number of heads of {path} is unknown: weights do not record it, and "
        + (f"{parameters} has no TR_heads." if parameters else NO_PARAMETERS)
        + ' Name the release\'s JSON with --parameters. The paper has 4 heads: a file with {"TR_heads": 4}.'
    )


def residual_stages(tensors: Tensors, kind: type[B]) -> B:
    """Widths and depths of the ground branch's residual network."""
    widths, blocks = [], []
    for index in (3, 4, 5, 6):
        widths.append(first_size(tensors, f"ground.backbone.layers.{index}.0.conv1.weight"))
        blocks.append(max(1, count(tensors, rf"ground\.backbone\.layers\.{index}\.(\d+)\.")))
    return kind(
        widths=(widths[0], widths[1], widths[2], widths[3]), blocks=(blocks[0], blocks[1], blocks[2], blocks[3])
    )
