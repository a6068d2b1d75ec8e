"""The options that state what a model sees of a data set's full panoramas, written once for all commands."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from geodtr.cli.options import numbers_of
from geodtr.export.options import from_given, option
from geodtr.runtime.names import Heading

if TYPE_CHECKING:
    from geodtr.training.data.views import Views

PANEL = "What is seen of full panoramas"


@dataclass(frozen=True, slots=True)
class ViewOptions:
    """What the group of options holds; `Views` checks it."""

    fov: float | None = option(None, "Cut panoramas to this field of view.", "DEGREES", shown="all, as they are")
    heading: Heading | None = option(
        None, "unknown: roll each panorama by a random angle.", shown="known, as they are aligned"
    )
    rows: str | None = option(
        None,
        "Keep these rows, as shares of the height. CVACT for a model of CVUSA, as in papers: 0.25,0.75.",
        "FROM,TO",
        shown="the model's own",
    )
    view_seed: int = option(
        2019, "Of the rolls, one for each pair by its place; 2019 gives the rolls of DSM's release.", minimum=0
    )


def views_of(given: Mapping[str, Any]) -> "Views":
    """What the options state. Raises ConfigError."""
    from geodtr.training.data.views import FULL_TURN, Views

    options: ViewOptions = from_given(ViewOptions, given)
    rows = None if options.rows is None else numbers_of(options.rows, "--rows", "0.25,0.75", count=2)
    fov = FULL_TURN if options.fov is None else options.fov
    return Views(fov, options.heading or "known", options.view_seed, rows)
