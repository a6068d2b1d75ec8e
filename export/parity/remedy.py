"""The command to run after a verdict that is not passed.

Knows gates, manifests and the command line's options; measures nothing.
"""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass

from geodtr.export.model import Model
from geodtr.export.parity.result import CheckName, Gate
from geodtr.runtime.build_command import float32_command, rebuild_command
from geodtr.runtime.bundle import Bundle
from geodtr.runtime.installation import install_hint
from geodtr.runtime.names import asked_as


@dataclass(frozen=True, slots=True)
class Comparison:
    """What was compared: `bundle` with `reference` on `data`, a SPEC. `layers_left`: whether --layers can still be
    added.
    """

    reference: Model
    bundle: Bundle
    data: str
    layers_left: bool

    @property
    def command(self) -> list[str]:
        paths = [str(self.reference.path), str(self.bundle.path)]
        return ["geodtr-export", "parity", *paths, "--data", self.data]


def next_step(gate: Gate, compared: Comparison) -> str | None:
    """One sentence that ends in a command; None where the gate is passed."""
    if gate.verdict == "passed":
        return None
    failed = {check.name for check in gate.checks if check.verdict == "failed"}
    if failed:
        return _after_failure(failed, gate, compared)
    if gate.recall_is_open:
        return _more_pairs(gate, compared)
    return f"Read the typed graphs as well: {install_hint('export')}"


def _after_failure(failed: set[CheckName], gate: Gate, compared: Comparison) -> str:
    manifest = compared.bundle.manifest
    entry, projection = manifest.quantisation, manifest.projection
    if failed & {"preprocessing", "graph", "batches"}:
        other = ", or for another --backend" if "batches" in failed else ""
        return f"Build it again{other}: {_rebuild(compared)}"
    if failed == {"recall"} and gate.pairing == "full" and projection is not None:
        more = min(2 * manifest.ground.spec.descriptor_size, projection.full_size - 1)
        source, changes = str(compared.reference.path), {"--descriptor-size": str(more)}
        return f"Keep more numbers: {rebuild_command(compared.bundle.path, manifest, source=source, changes=changes)}"
    if entry is not None and entry.search is not None:
        half = str(round(entry.search.tolerance / 2, 4))
        return f"Search again with half the tolerance: {_rebuild(compared, {'--tolerance': half})}"
    if entry is not None and entry.keep_cosine is not None:
        half_way = round((1 + entry.keep_cosine) / 2, 6)
        command = _rebuild(compared, {"--keep-cosine": str(half_way)})
        also = "; or choose blocks by recall: --precision auto --recall-on SPEC" if "recall" in failed else ""
        return f"Keep more operators in float (--keep-cosine){also}. For example: {command}"
    if compared.layers_left:
        return f"Find the layer: {shlex.join([*compared.command, '--layers'])}"
    return f"Build float32 engines: {float32_command(compared.bundle.path, manifest, _checkpoint(compared))}"


def _rebuild(compared: Comparison, changes: Mapping[str, str] | None = None) -> str:
    """The command that builds the bundle again with other settings, from the checkpoint where that is at hand."""
    return rebuild_command(
        compared.bundle.path, compared.bundle.manifest, source=_checkpoint(compared), changes=changes
    )


def _checkpoint(compared: Comparison) -> str | None:
    return str(compared.reference.path) if compared.reference.bundle is None else None


def _more_pairs(gate: Gate, compared: Comparison) -> str:
    """How to decide recall, and how to live with an undecided one."""
    precision = asked_as(compared.bundle.manifest.precision)
    if gate.pairs_to_decide is None and gate.pairing == "full":
        return f"Allow more: {shlex.join([*compared.command, '--max-compact-drop', 'POINTS'])}"
    if gate.pairs_to_decide is None:
        return f"Allow more by --max-drop: {shlex.join([*compared.command, '--max-drop', f'{precision}=POINTS'])}"
    accept = " Or accept it: add --accept-undecided." if gate.drop <= gate.max_drop else ""
    kind = compared.data.partition(":")[0]
    if kind != "pairs":
        return (
            f"Measure on about {gate.pairs_to_decide:,} pairs, a larger split of {kind}: or another data set: "
            f"{shlex.join([*compared.command[:-1], 'SPEC'])}.{accept}"
        )
    world = f"geodtr-export world MORE --pairs {gate.pairs_to_decide}"
    again = shlex.join([*compared.command[:-1], "pairs:MORE"])
    return (
        f"Measure on about {gate.pairs_to_decide:,} pairs.{accept} For a generated world, with the --region, --size "
        f"and --seed of {compared.data}: {world} && {again}"
    )
