"""A parity run in a terminal: what was found, what changed and how surely, where it was lost, the verdicts."""

from collections import Counter
from typing import TYPE_CHECKING

from geodtr.cli.console import RECALL_COLUMNS, judged, megabytes, output, recall_cells, times, warn, warn_of_collapse
from geodtr.cli.tables import table
from geodtr.runtime.names import BRANCHES

if TYPE_CHECKING:
    from geodtr.export.graph.discrete import PatchAgreement
    from geodtr.export.parity.measurements import Change, StageName
    from geodtr.export.parity.result import Candidate, ParityFigures
    from geodtr.runtime.recall import Recall

_LAYERS_SHOWN = 10
_EXPENDABLE = ("MB", "img/s", "R@10", "R@1%", "R@5", "mean cos", "moved", "min cos")
_WEIGHTED = ("Conv", "MatMul", "Gemm")
_TENTHS_DO = 1000
_PAIRINGS = ("own gallery", "reference's gallery", "reference's queries")
_STEPS: "dict[StageName, str]" = {"onnx": "ONNX, float32", "typed": "ONNX, typed", "engine": "engine"}


def show_parity(figures: "ParityFigures", pixels: "Recall | None" = None) -> None:
    """All tables, the verdicts below them; `pixels` is the raw-pixel baseline's recall."""
    _show_found(figures, pixels)
    _show_changes(figures)
    if any(candidate.stages for candidate in figures.candidates):
        _show_stages(figures)
    for candidate in figures.candidates:
        if candidate.layers:
            _show_layers(candidate)
    output.print()
    for candidate in figures.candidates:
        _show_verdict(candidate)
    for candidate in figures.candidates:
        if candidate.times_fp32 is not None and candidate.times_fp32.slower:
            warn(f"{candidate.name} is slower here than {figures.fp32}: {times(candidate.times_fp32)}.")
    warn_of_collapse(figures.reference.name, figures.reference.recall)


def _show_found(figures: "ParityFigures", pixels: "Recall | None") -> None:
    columns = ("", *RECALL_COLUMNS, "mean cos", "min cos", "moved", "img/s", "MB", "")
    seen = "" if figures.views.as_they_are else f", {figures.views}"
    rows = table(f"Parity on {figures.pairs} pairs of {figures.data}{seen}", columns, _EXPENDABLE)
    if pixels is not None:
        rows.add_row("pixels", *recall_cells(pixels), *[""] * 6, style="dim")
    before = figures.reference
    speed, size = f"{before.speed.median:.0f}", megabytes(before.bytes)
    rows.add_row(before.name, *recall_cells(before.recall), "", "", "", speed, size, "")
    for each in figures.candidates:
        rows.add_row(
            each.name,
            *recall_cells(each.own.recall),
            f"{each.mean_cosine:.5f}",
            f"{each.smallest_cosine:.5f}",
            str(each.own.moved),
            f"{each.speed.median:.0f}",
            megabytes(each.bytes),
            judged(each.gate.verdict, accepted=each.gate.accepted),
        )
    output.print(rows)
    output.print(
        "cos: cosine of an engine's descriptors with the reference's; moved: queries whose rank changed", style="dim"
    )
    if any(each.gate.accepted for each in figures.candidates):
        output.print(
            "accepted: the pairs do not decide recall; the measured drop is within what is allowed", style="dim"
        )


def _show_changes(figures: "ParityFigures") -> None:
    output.print()
    projected = any(len(each.pairings) > len(_PAIRINGS) for each in figures.candidates)
    columns = ("", *_PAIRINGS, *(["not projected"] if projected else []))
    rows = table("Change of R@1 in points, and where 95 % confidence puts it", columns)
    for each in figures.candidates:
        # One query of a small set is more than a tenth of a point.
        digits = 1 if figures.pairs < _TENTHS_DO else 2
        rows.add_row(each.name, *(_interval(pairing.at_1, digits) for pairing in each.pairings))
    output.print(rows)
    output.print(
        "An engine's queries in its own gallery, in the reference's, and the reference's queries in the engine's",
        style="dim",
    )
    if projected:
        output.print(
            "not projected: against the reference's descriptors as they are before the projection", style="dim"
        )


def _show_stages(figures: "ParityFigures") -> None:
    output.print()
    rows = table("Step by step, each against the one before", ("", "", "R@1", "lost", "gained", "min cos", "flips"))
    for candidate in figures.candidates:
        for number, stage in enumerate(candidate.stages):
            flips = [each.argmax_flips for each in stage.from_previous if each.argmax_flips is not None]
            rows.add_row(
                "" if number else candidate.name,
                _STEPS[stage.name],
                f"{100 * stage.recall.at_1:.1f}",
                str(stage.step.lost),
                str(stage.step.gained),
                f"{min(each.smallest_cosine for each in stage.from_previous):.5f}",
                f"{100 * max(flips):.1f} %" if flips else "",
            )
    output.print(rows)
    output.print("flips: positions where another channel wins the saliency's arg-max", style="dim")
    for candidate in figures.candidates:
        for each in candidate.branches:
            if each.patches is not None:
                output.print(f"{candidate.name}: {_patches(each.patches)}", soft_wrap=True)


def _patches(found: "PatchAgreement") -> str:
    return (
        f"the typed graph keeps other patches than the float32 one in {found.changed} of {found.images} images, "
        f"{100 * found.others:.2f} % of all; from the same patches the smallest cosine is {found.smallest_cosine:.5f}"
    )


def _show_layers(candidate: "Candidate") -> None:
    output.print()
    columns = ("layer", "block", "in", "cos", "inputs", "error %")
    rows = table(f"{candidate.name}: the layers that turn most, in the graph's order", columns)
    worst = sorted(candidate.layers, key=lambda layer: layer.turn)[-_LAYERS_SHOWN:]
    for each in candidate.layers:
        if each in worst:
            figures = (f"{each.cosine:.5f}", f"{each.inputs_cosine:.5f}", f"{100 * each.error:.1f}")
            rows.add_row(f"{each.branch}/{each.node}", each.block, each.precision, *figures)
    output.print(rows)
    output.print("cos: of what a layer gives; inputs: of what it was given", style="dim")
    minimum = candidate.gate.least_cosine
    for branch in BRANCHES:
        fallen = (each for each in candidate.layers if each.branch == branch and each.cosine < minimum)
        first = next(fallen, None)
        if first is not None:
            output.print(
                f"{branch}: the first cosine below {minimum} is at {first.node} ({first.kind}, {first.precision}).",
                soft_wrap=True,
            )


def _show_verdict(candidate: "Candidate") -> None:
    output.print(f"{candidate.name}:", judged(candidate.gate.verdict, accepted=candidate.gate.accepted))
    for reason in candidate.gate.reasons:
        output.print(f"  {reason}", soft_wrap=True)
    output.print(f"  {_precisions(candidate)}", style="dim", soft_wrap=True)
    if candidate.gate.blamed is not None and candidate.stages:
        output.print(f"  Step that lost most: {_STEPS[candidate.gate.blamed]}")
    if candidate.next_step is not None:
        output.print(f"  Next: {candidate.next_step}", soft_wrap=True)


def _precisions(candidate: "Candidate") -> str:
    """What the operators with weights compute in, of both branches together, and the backend's own word on layers."""
    counted, layers = Counter[str](), Counter[str]()
    for branch in candidate.audit:
        for kind in _WEIGHTED:
            counted.update({f"{kind} {precision}": n for precision, n in branch.operators.get(kind, {}).items()})
        layers.update(branch.layers)
    if candidate.audit[0].unread is not None:
        return f"The typed graphs were not looked into: {candidate.audit[0].unread}"
    parts = [", ".join(f"{n} {what}" for what, n in counts.items()) for counts in (counted, layers) if counts]
    return "; by the backend, layers: ".join(parts)


def _interval(change: "Change", digits: int) -> str:
    middle, low, high = (f"{100 * share:+.{digits}f}" for share in (change.change, change.low, change.high))
    return f"{middle} ({low} to {high})"
