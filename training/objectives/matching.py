"""The usual objective: descriptors of matching pairs are to be alike, in one update a step.

Source: Zhang et al., AAAI 2023, section 4.2; the losses and ASAM have their own.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from geodtr.runtime.names import BRANCHES, Branch
from geodtr.training.config import Recipe, TrainConfig
from geodtr.training.losses.contrastive import counterfactual, info_nce, soft_margin_triplet
from geodtr.training.losses.exemplars import Exemplars, reweighted_triplet
from geodtr.training.models.registry import Model
from geodtr.training.objectives.base import Scale, StepInput, Updates, autocast
from geodtr.training.parallel.branch_threads import BranchThreads, can_run_in_threads
from geodtr.training.parallel.distributed import Ranks
from geodtr.training.parallel.grad_cache import Gradients, Outputs, backpropagate, backward
from geodtr.training.seeding import Purpose, generator, seed_of
from geodtr.training.sharpness import climbed


class Matching:
    """An `Objective` for any model."""

    updates: Sequence[str] = ("matching",)

    def __init__(self, config: TrainConfig, model: Model, ranks: Ranks) -> None:
        self.config, self.ranks = config, ranks
        self.model: Model = model
        self.networks: nn.Module = model
        self.branches = BranchThreads(
            # Ranks exchange statistics at each batch normalisation, and all need the same order.
            parallel=ranks.device.type == "cpu" and ranks.count == 1 and can_run_in_threads(model)
        )
        self.described: tuple[Tensor, Tensor] | None = None

    def gradients(self, step: StepInput, scale: Scale) -> Updates:
        """One update, of the whole batch."""
        recipe = self.config.recipe

        def forward(index: int) -> Outputs:
            return self._forward(step, index)

        def match(ground: Tensor, aerial: Tensor) -> Tensor:
            tiles = step.tiles
            if recipe.loss == "infonce":
                assert self.model.logit_scale is not None, "the configuration is checked"
                return info_nce(ground, aerial, self.model.logit_scale, recipe.label_smoothing, tiles=tiles)
            if recipe.loss != "triplet":
                return reweighted_triplet(ground, aerial, _exemplars(recipe), tiles=tiles)
            similarity = self.model.similarity
            return soft_margin_triplet(
                ground, aerial, recipe.triplet_alpha, hardest=step.hardest, tiles=tiles, similarity=similarity
            )

        def loss_of(outputs: Outputs) -> Tensor:
            middle = self._middle(outputs)
            weights, looks = self.model.output_weights, recipe.looks
            grounds, imagined_ground = outputs[:looks], outputs[looks * len(weights) : middle]
            aerial, imagined_aerial = outputs[middle], outputs[middle + len(weights) :]
            if self.described is None:  # in the first pass of a step, with the weights as they are
                self.described = grounds[0].detach(), aerial.detach()
            matched = [
                weight * match(ground, outputs[middle + index]) / looks
                for index, weight in enumerate(weights)
                for ground in outputs[index * looks : (index + 1) * looks]
            ]
            loss = torch.stack(matched).sum()
            if recipe.consistency:
                loss = loss + recipe.consistency * match(*grounds)
            if recipe.counterfactual_weight:
                weight = recipe.counterfactual_weight / 2
                for index, other in enumerate(imagined_ground):
                    real = grounds[index % recipe.looks]
                    loss = loss + weight / recipe.looks * counterfactual(real, other, recipe.counterfactual_beta)
                for other in imagined_aerial:
                    loss = loss + weight * counterfactual(aerial, other, recipe.counterfactual_beta)
            return loss

        def descend() -> Tensor:
            return backward(
                self.model,
                forward,
                len(step.images),
                loss_of,
                ranks=self.ranks,
                scale=scale,
                propagate=self._propagate,
            )

        self.described = None
        self.model.zero_grad(set_to_none=True)
        loss = descend()
        if recipe.sharpness:
            with climbed(self.model.parameters(), recipe.sharpness):
                descend()
        yield loss

    def _forward(self, step: StepInput, index: int) -> Outputs:
        """Run micro-batch `index` of this step through both branches; deterministic, as it may run twice."""
        seed, ranks = self.config.recipe.seed, self.ranks
        size = self.config.micro_batch * self.config.recipe.views
        share = ranks.share(size)
        torch.manual_seed(seed_of(seed, Purpose.DROPOUT, step.number, index, ranks.number))

        def run(branch: Branch) -> Outputs:
            random = generator(seed, Purpose.IMAGINED, step.number, index, BRANCHES.index(branch))

            looks = self.config.recipe.looks if branch == "ground" else 1

            def uniform(shape: Sequence[int]) -> Tensor:
                rows = [torch.rand((size, *shape), generator=random)[share] for _ in range(looks)]
                return torch.cat(rows).to(ranks.device)

            with autocast(self.config, ranks):
                outputs = self.model.training_outputs(branch, step.images[index][branch], uniform)
            return tuple(part for output in outputs for part in output.chunk(looks)) if looks > 1 else outputs

        outputs = self.branches.map(run)
        return (*outputs["ground"], *outputs["aerial"])

    def _middle(self, outputs: Outputs) -> int:
        """Where the aerial branch's begin: the ground branch has as many for each look at its panoramas."""
        looks = self.config.recipe.looks
        return len(outputs) * looks // (looks + 1)

    def _propagate(self, outputs: Outputs, gradients: Gradients) -> None:
        """Backpropagate each branch separately."""
        middle = self._middle(outputs)
        parts: dict[Branch, slice] = {"ground": slice(None, middle), "aerial": slice(middle, None)}
        self.branches.map(lambda branch: backpropagate(outputs[parts[branch]], gradients[parts[branch]]))


def _exemplars(recipe: Recipe) -> Exemplars:
    return Exemplars(
        scale=recipe.exemplar_scale,
        margin=recipe.exemplar_margin,
        removes_simple=recipe.loss == "seh",
        both_directions=recipe.exemplar_both,
        detached=recipe.exemplar_detach,
    )
