"""The command `doctor`: reports what runs on this machine and how to fix the rest. Needs only the lean runtime."""

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from geodtr.cli.console import output, show_json, verdict
from geodtr.cli.options import AsJson, argument

if TYPE_CHECKING:
    from geodtr.runtime.preflight import Finding


def doctor(
    bundle: Annotated[Path | None, argument("[BUNDLE]", "A bundle folder.", show_default="the machine alone")] = None,
    as_json: AsJson = False,
) -> None:
    """Check, without loading an engine, whether a bundle would run here; exit 1 when it would not.

    Looks at the manifest, the hash of every file, the backend and its version, GPU, driver and CPU. Each failure comes
    with the command that mends it. Without BUNDLE: what this machine can run, and whether its arithmetic is exact.
    """
    from geodtr.runtime.doctor.diagnosis import examine_bundle, examine_machine

    diagnosis = examine_machine() if bundle is None else examine_bundle(bundle)
    if find_spec("onnx") is not None:  # without it nothing is compiled here, and nothing of it matters
        from geodtr.export.graph.pixel_order import with_old_graphs

        diagnosis = with_old_graphs(diagnosis)
    if as_json:
        show_json(diagnosis)
    else:
        _show(diagnosis.findings)
        output.print(f"{bundle or 'this machine'}:", verdict(diagnosis.passed), soft_wrap=True)
    raise typer.Exit(0 if diagnosis.passed else 1)


def _show(findings: "tuple[Finding, ...]") -> None:
    from rich.table import Table

    rows = Table(box=None, pad_edge=False, padding=(0, 1), show_header=False)
    for finding in findings:
        state = verdict(False) if finding.failed else "note" if finding.remedy else "ok"
        rows.add_row(state, finding.what, finding.found)
    output.print(rows)
    for finding in findings:
        if finding.remedy:
            output.print(f"{finding.what}:", style="bold")
            output.print(f"  {finding.remedy}", soft_wrap=True)
