"""The training configuration: what can be set, and what excludes what."""

from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec

from geodtr.runtime.errors import ConfigError
from geodtr.runtime.names import Heading
from geodtr.runtime.spec import Preprocessing
from geodtr.training.augment.layout_simulation import Layout
from geodtr.training.augment.photometric import Semantic
from geodtr.training.data.views import FULL_TURN, Views, columns_of
from geodtr.training.models.cde import CdeConfig
from geodtr.training.models.dsm import DsmConfig
from geodtr.training.models.fusiongan_stage1 import FusionGanStage1Config
from geodtr.training.models.registry import ModelConfig
from geodtr.training.models.sample4geo import Sample4GeoConfig
from geodtr.training.qat import Int8Simulation

Count = Annotated[int, msgspec.Meta(ge=1)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Part = Annotated[float, msgspec.Meta(gt=0, le=1)]
Positive = Annotated[float, msgspec.Meta(gt=0)]
NotNegative = Annotated[float, msgspec.Meta(ge=0)]


class Recipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Hyperparameters: all settings that influence the trained weights.

    Attributes
    ----------
    micro_batch
        Pairs per forward pass; 0 for the whole batch. A smaller value needs less memory and computes each image twice.
        All pairs of the batch stay negatives of each other; batch normalisation sees one micro-batch.
    views
        Views of each pair in a batch. With 2, each gets its own photometric change, and the second a second layout
        change on top of the first; they are negatives of each other (the hard-sample generation of GeoDTR+).
    warmup
        Share of all steps over which the learning rate rises linearly. It then follows a cosine to zero.
    schedule
        When the learning rate changes: at each "step", at each step with a first one of 0 ("step-from-zero", as in
        L2LTR's release), or at each "epoch", with a first one of 0 too if there is a warm-up (TransGeo's release); or
        never ("constant").
    epsilon, beta1
        AdamW's term for numerical stability, and how much of the mean gradient it keeps at each step.
    clip_norm
        Largest norm of all gradients together; inf for any.
    sharpness
        Radius of ASAM, whose steps take the gradient at a worse point nearby; 0 for ordinary steps. Takes twice the
        time (TransGeo: 2.5).
    loss
        "triplet", or "infonce" with `label_smoothing` and a temperature that is trained, which Sample4Geo has. "her"
        and "seh" weight triplets by their difficulty, with the settings `exemplar_...`; SEH is reconstructed.
        "adversarial" is CDE's: "triplet", and street views drawn of tiles against a discriminator, for which a real one
        has the label `real_label` and a drawn one 0. In the generator's loss, the difference to the pair's panorama
        has the weight `l1_weight`, the triplet loss `matching_weight`. FusionGAN's stage 1 draws tiles of panoramas so,
        without a triplet loss.
    exemplar_scale, exemplar_margin
        Factor of the descriptors, and how much farther than the positive a simple negative is, as a share of the
        factor's square. Simple triplets weigh 0 in "seh", little in "her".
    exemplar_both
        Whether aerial descriptors are anchors too.
    exemplar_detach
        Whether no gradient flows through the weights.
    hardest
        Share of triplets, by largest loss, that count. It falls from 1 to this value over the first half of the run.
    hardest_from
        In place of it: epochs, counted from 0, and the share that counts from each on; before the first, all count.
    counterfactual_weight
        Weight of the counterfactual loss; 0 disables it.
    negatives
        Pairs that share a batch: "random" ones, "nearby" ones on the map, or "similar" ones. The latter are nearby ones
        until descriptors are compared after `compare_every` epochs, and again after as many (Sample4Geo). "mined":
        half of each batch is random, and each pair of it has a similar one by their last descriptors (TransGeo).
    neighbours, selected_neighbours
        Length of the list of each tile, and how many of it follow a pair in its batch: the nearest half, and as many
        random ones.
    layout
        Strength of layout simulation. "any-angle" needs a polar aerial branch.
    semantic
        Strength of photometric augmentation (the paper's "semantic augmentation"); or "sample4geo": JPEG, colours,
        blur or sharpening, and dropped rectangles, as in that release.
    heading_error
        Largest rotation of the panorama alone, in degrees either way. It makes a model robust to inexact headings. For
        `localize` with N headings, use half a step: 180 / N.
    fields
        Fields of view in degrees, one of them drawn for each pair in each epoch: full panoramas are cut to it, after a
        rotation within `heading_error`. Without any, images are taken as they are.
    consistency
        Weight of the loss between each pair's cut view and its full panorama, which then learns beside it (ConGeo); 0
        disables both.
    pretrained
        Backbone weights: none, imagenet, or a file.
    start
        Checkpoint of the same network to start from, or of the stage before; empty for none.
    """

    epochs: Count
    batch_size: Annotated[int, msgspec.Meta(ge=2)]
    micro_batch: Annotated[int, msgspec.Meta(ge=0)] = 0
    views: Literal[1, 2] = 1
    learning_rate: Positive
    weight_decay: NotNegative = 0.03
    warmup: Share = 0.08
    schedule: Literal["step", "step-from-zero", "epoch", "constant"] = "step"
    epsilon: Positive = 1e-6
    beta1: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.9
    clip_norm: Positive = 1.0
    sharpness: NotNegative = 0.0
    loss: Literal["triplet", "infonce", "her", "seh", "adversarial"] = "triplet"
    real_label: Share = 0.9
    l1_weight: NotNegative = 100.0
    matching_weight: NotNegative = 1000.0
    exemplar_scale: Positive = 5.0
    exemplar_margin: Positive = 0.15
    exemplar_both: bool = False
    exemplar_detach: bool = False
    label_smoothing: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.1
    triplet_alpha: Positive = 10.0
    hardest: Part = 1.0
    hardest_from: tuple[tuple[Annotated[int, msgspec.Meta(ge=0)], Part], ...] = ()
    counterfactual_beta: Positive = 5.0
    counterfactual_weight: NotNegative = 1.0
    negatives: Literal["random", "nearby", "similar", "mined"] = "random"
    neighbours: Count = 128
    selected_neighbours: Annotated[int, msgspec.Meta(ge=0)] = 64
    compare_every: Count = 4
    layout: Layout = "strong"
    semantic: Literal[Semantic, "sample4geo"] = "none"
    heading_error: Annotated[float, msgspec.Meta(ge=0, le=180)] = 0.0
    fields: tuple[Annotated[float, msgspec.Meta(gt=0, le=360)], ...] = ()
    consistency: NotNegative = 0.0
    pretrained: str = "none"
    start: str = ""
    seed: Annotated[int, msgspec.Meta(ge=0)] = 0

    @property
    def looks(self) -> int:
        """How many images of each panorama a step takes: with `consistency` the cut view and the full panorama."""
        return 2 if self.consistency else 1


class Machine(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Execution settings.

    Attributes
    ----------
    precision
        Arithmetic of the backbone; weights, losses and the optimiser stay float32. On a GPU, "float32" leaves
        convolutions in TF32, PyTorch's default; validation and parity compute without it.
    channels_last, compile
        Change only the speed, up to rounding. `channels_last` "auto": as is faster on this machine.
    cache_gb
        Memory for decoded images, in GB. If both views of all pairs fit, each image is decoded once, else every epoch.
    save_minutes
        Interval for saving the resumable state within an epoch. It is also saved after every epoch.
    """

    precision: Literal["float32", "bf16", "fp16"] = "float32"
    channels_last: bool | Literal["auto"] = "auto"
    compile: bool = False
    cache_gb: NotNegative = 4.0
    save_minutes: Positive = 10.0
    validate_every: Count = 1


class DataSpecs(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Data sets of a run, as SPECs; empty for none. `limit`: number of training pairs to use, 0 for all."""

    train: str = ""
    validation: str = ""
    limit: Annotated[int, msgspec.Meta(ge=0)] = 0


class TrainConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A run: the model, its inputs, the hyperparameters, the execution settings and the data."""

    recipe: Recipe
    ground: Preprocessing
    aerial: Preprocessing
    model: ModelConfig
    machine: Machine = Machine()
    data: DataSpecs = DataSpecs()
    int8: Int8Simulation = Int8Simulation()

    @property
    def micro_batch(self) -> int:
        """Pairs per forward pass."""
        return self.recipe.micro_batch or self.recipe.batch_size

    @property
    def validation_views(self) -> Views:
        """What validation is to see of each panorama: the smallest field of view that is trained.

        Images of a smaller field of view are no full turns, and are taken as they are.
        """
        recipe, imagery = self.recipe, self.ground.imagery
        if not recipe.fields and imagery.is_narrow:
            return Views()
        unknown = recipe.heading_error == 180 and imagery.projection == "panorama"
        return Views(min(recipe.fields, default=FULL_TURN), "unknown" if unknown else "known")

    def check_rolls(self) -> None:
        """Raise ConfigError where training would roll images that are stated to look ahead, as if they were panoramas.

        A preset may state them beside a recipe for panoramas, to describe the network of a checkpoint.
        """
        recipe, imagery = self.recipe, self.ground.imagery
        if not imagery.is_narrow or recipe.fields:
            return
        if recipe.heading_error or recipe.layout in ("strong", "any-angle"):
            raise ConfigError(
                f'recipe.heading_error is {recipe.heading_error:g} and recipe.layout "{recipe.layout}": they roll full '
                "panoramas, and ground.imagery states images of less than a full turn. Set recipe.heading_error=0 and "
                f"recipe.layout=weak. To cut views of panoramas: recipe.fields=[{imagery.field_of_view or 90:g}]."
            )

    def __post_init__(self) -> None:
        if self.ground.polar:
            raise ConfigError(
                "ground.polar is true, but the polar transform is for square aerial tiles. Set ground.polar to false."
            )
        if self.recipe.layout == "any-angle" and not self.aerial.polar:
            raise ConfigError(
                'recipe.layout "any-angle" needs a polar aerial branch. Square tiles rotate only by quarter turns: use '
                '"strong".'
            )
        if self.recipe.layout == "strong" and not self.aerial.polar and self.aerial.height != self.aerial.width:
            raise ConfigError(
                f'recipe.layout "strong" rotates tiles by quarter turns, but aerial is {self.aerial.height}x'
                f'{self.aerial.width}. Make it square, or set recipe.layout to "weak" or "none".'
            )
        if self.ground.imagery.projection == "nadir":
            self._check_nadir()
        if self.recipe.views == 2 and self.recipe.layout in ("weak", "none") and self.recipe.semantic == "none":
            raise ConfigError(
                f'recipe.views 2 makes two views that differ, but recipe.layout is "{self.recipe.layout}" and '
                'recipe.semantic "none": both would be equal. Set recipe.layout=strong.'
            )
        self._check_loss()
        if isinstance(self.model, DsmConfig) and (
            self.recipe.loss != "triplet" or self.recipe.negatives in ("similar", "mined")
        ):
            raise ConfigError(
                f'recipe.loss "{self.recipe.loss}" and recipe.negatives "{self.recipe.negatives}": of these, the model '
                '"dsm" takes "triplet" and "random" or "nearby". The others compare descriptors by their cosine.'
            )
        if isinstance(self.model, DsmConfig) and (len(self.recipe.fields) > 1 or self.recipe.consistency):
            raise ConfigError(
                f"recipe.fields are {_listed(self.recipe.fields)} and recipe.consistency is "
                f'{self.recipe.consistency:g}, but the model "dsm" has as many columns as one field of view. Set one '
                "field, and recipe.consistency=0."
            )
        if self.recipe.consistency and (not self.recipe.fields or self.recipe.views != 1):
            raise ConfigError(
                f"recipe.consistency {self.recipe.consistency:g} compares cut views with full panoramas, one of each a "
                f"pair; recipe.fields are {_listed(self.recipe.fields)} and recipe.views {self.recipe.views}. Set "
                "recipe.fields=[180,90] and recipe.views=1, for example."
            )
        if self.recipe.negatives == "mined" and (self.recipe.batch_size % 2 or self.recipe.views != 1):
            raise ConfigError(
                f'recipe.negatives "mined" gives half of a batch partners, one view each; recipe.batch_size is '
                f"{self.recipe.batch_size} and recipe.views {self.recipe.views}. Make it even, with one view."
            )
        if self.recipe.start and self.recipe.pretrained != "none":
            raise ConfigError("recipe.start and recipe.pretrained both set initial weights. Set only one of them.")
        if self.recipe.batch_size % self.micro_batch:
            raise ConfigError(
                f"recipe.micro_batch {self.micro_batch} does not divide recipe.batch_size {self.recipe.batch_size}."
            )

    def _check_loss(self) -> None:
        recipe = self.recipe
        if recipe.loss == "infonce" and not isinstance(self.model, Sample4GeoConfig):
            raise ConfigError(
                'recipe.loss "infonce" trains a temperature, which only the model "sample4geo" has. Set '
                "recipe.loss=triplet."
            )
        if recipe.hardest != 1 and recipe.hardest_from:
            raise ConfigError(
                f"recipe.hardest is {recipe.hardest:g}, and recipe.hardest_from sets the share of triplets that count, "
                "too. Set only one of them."
            )
        draws = isinstance(self.model, FusionGanStage1Config)
        selects = recipe.negatives != "random" or recipe.hardest != 1 or recipe.hardest_from
        if draws and (recipe.loss != "adversarial" or selects):
            raise ConfigError(
                f'recipe.loss is "{recipe.loss}", recipe.negatives "{recipe.negatives}", recipe.hardest '
                f"{recipe.hardest:g} and recipe.hardest_from {recipe.hardest_from}, but the model "
                '"fusiongan-stage1" has no descriptors to compare. Set recipe.loss=adversarial, '
                "recipe.negatives=random, recipe.hardest=1 and recipe.hardest_from=[]."
            )
        if recipe.loss != "adversarial":
            return
        if not draws and not isinstance(self.model, CdeConfig):
            raise ConfigError(
                'recipe.loss "adversarial" draws one view of the other, which only the models "cde" and '
                '"fusiongan-stage1" do. Set recipe.loss=triplet.'
            )
        if recipe.counterfactual_weight or recipe.sharpness or recipe.consistency:
            raise ConfigError(
                f'recipe.loss "adversarial" has updates of its own; recipe.counterfactual_weight is '
                f"{recipe.counterfactual_weight:g}, recipe.sharpness {recipe.sharpness:g} and recipe.consistency "
                f"{recipe.consistency:g}. Set all three to 0."
            )

    def _check_nadir(self) -> None:
        if self.recipe.layout == "strong" and self.ground.height != self.ground.width:
            raise ConfigError(
                f'recipe.layout "strong" rotates nadir frames by quarter turns, but ground is {self.ground.height}x'
                f'{self.ground.width}. Make it square, or set recipe.layout to "weak" or "none".'
            )
        if self.recipe.heading_error or self.recipe.fields:
            raise ConfigError(
                f"recipe.heading_error is {self.recipe.heading_error:g} and recipe.fields are "
                f"{_listed(self.recipe.fields)}: both shift columns of panoramas, and ground.imagery.projection is "
                "nadir. Leave them out; the pairs' frames may be rotated instead."
            )


def limit_field(config: TrainConfig, field_of_view: float | None, heading: Heading | None) -> TrainConfig:
    """The configuration for a field of view in degrees, or an unknown heading; None leaves it as it is.

    The ground branch gets as many columns as the field has, as in the releases of DSM and TransGeo.
    """
    recipe, ground = config.recipe, config.ground
    if heading is not None:
        recipe = msgspec.structs.replace(recipe, heading_error=180.0 if heading == "unknown" else 0.0)
    if field_of_view is not None:
        Views(field_of_view)  # raises for one that is not allowed
        seen = ground.imagery.field_of_view or FULL_TURN
        of_all = config.aerial.width if isinstance(config.model, DsmConfig) else round(ground.width * FULL_TURN / seen)
        aspect = ground.imagery.aspect and ground.imagery.aspect * field_of_view / seen
        ground = msgspec.structs.replace(
            ground,
            width=columns_of(field_of_view, of_all),
            imagery=msgspec.structs.replace(ground.imagery, field_of_view=field_of_view, aspect=aspect),
        )
        recipe = msgspec.structs.replace(recipe, fields=() if field_of_view == FULL_TURN else (field_of_view,))
    return msgspec.structs.replace(config, recipe=recipe, ground=ground)


def _listed(fields: Sequence[float]) -> str:
    return f"[{','.join(f'{field:g}' for field in fields)}]"
