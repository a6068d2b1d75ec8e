"""Parity in a project's own tests: the fixture `geodtr_parity`, and the option `--geodtr-report`.

Every pytest run loads this file where geodtr-export is installed: all that is heavy is imported inside the call.
"""

import re
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from geodtr.export.parity import Gates
    from geodtr.export.parity.result import ParityResult
    from geodtr.runtime.names import PrecisionAsked


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("geodtr", "parity of engines").addoption(
        "--geodtr-report",
        metavar="DIR",
        type=Path,
        help="Write the report of each call of geodtr_parity to DIR, in place of an earlier run's.",
    )


class ParityCheck:
    """What the fixture gives: call it with a reference and its candidates; the test fails where one does not pass."""

    def __init__(self, test: str, reports: Path | None) -> None:
        self._test = re.sub(r"[^\w.]+", "-", test).strip("-")
        self._reports = reports
        self._calls = 0

    def __call__(
        self,
        reference: str | PathLike[str],
        *candidates: str | PathLike[str],
        data: str,
        limit: int | None = None,
        max_drop: "Mapping[PrecisionAsked, float] | None" = None,
        require_certain: bool = False,
    ) -> "ParityResult":
        """Hold bundles against a checkpoint or a bundle, as `geodtr-export parity` does; nothing is written to them.

        `data` is a SPEC, of which the first `limit` pairs are used. `max_drop`: points of R@1 that may be lost, by
        precision (auto for blocks chosen by recall), where not the default; `require_certain`: the sample must be large
        enough to be sure of it. Returns the result when every candidate passes; otherwise, and where nothing can be
        compared, the test fails with the reason in words.
        """
        __tracebackhide__ = True
        from geodtr.runtime.errors import UserError

        try:
            gates = _gates(max_drop or {}, require_certain)
            result = self._compare(Path(reference), [Path(path) for path in candidates], data, limit, gates)
        except UserError as error:
            pytest.fail(f"geodtr_parity: {error}", pytrace=False)
        if not result.passed:
            pytest.fail(self._said(result), pytrace=False)
        return result

    def _compare(
        self, reference: Path, candidates: list[Path], data: str, limit: int | None, gates: "Gates"
    ) -> "ParityResult":
        from geodtr.export.model import open_model
        from geodtr.export.parity import compare
        from geodtr.export.report import check_replaceable, replace_report
        from geodtr.runtime.errors import ConfigError
        from geodtr.training.data.spec import read_test_set

        if not candidates:
            raise ConfigError("Name at least one candidate: geodtr_parity(REFERENCE, BUNDLE, data=SPEC).")

        self._calls += 1
        report = self._report()
        if report is not None:
            check_replaceable(report)
        pair_set = read_test_set(data, limit)
        result = compare(open_model(reference), [open_model(path) for path in candidates], pair_set, gates=gates)
        if report is not None:
            replace_report(result, report)
        return result

    def _report(self) -> Path | None:
        """Where this call's report goes."""
        number = f"-{self._calls}" if self._calls > 1 else ""
        return None if self._reports is None else self._reports / f"{self._test}{number}.html"

    def _said(self, result: "ParityResult") -> str:
        from geodtr.export.report.words import headline, summary

        lines = [f"{headline(result)}, on {result.figures.pairs:,} pairs of {result.figures.data}."]
        for candidate in result.candidates:
            lines.append(f"{candidate.name}: {candidate.gate.verdict}. {summary(candidate)}")
            if candidate.gate.verdict != "passed":
                lines += [f"  - {reason}" for reason in candidate.gate.reasons]
        report = self._report()
        lines.append("A report: pytest --geodtr-report DIR" if report is None else f"Report: {report}")
        return "\n".join(lines)


def _gates(max_drop: "Mapping[PrecisionAsked, float]", require_certain: bool) -> "Gates":
    from geodtr.export.parity import Gates
    from geodtr.runtime.errors import ConfigError
    from geodtr.runtime.names import PRECISIONS, asked_as

    names = {asked_as(precision): precision for precision in PRECISIONS}
    for name, points in max_drop.items():
        if name not in names or not 0 <= points <= 100:
            raise ConfigError(
                f"max_drop has {name!r}: {points}; allowed are {', '.join(names)}, each with 0 to 100 points of R@1."
            )
    return Gates({names[name]: points for name, points in max_drop.items()}, require_certain=require_certain)


@pytest.fixture
def geodtr_parity(request: pytest.FixtureRequest) -> ParityCheck:
    """Fail the test unless engines find what the reference model finds: geodtr_parity(REFERENCE, BUNDLE, data=SPEC)."""
    return ParityCheck(request.node.nodeid, request.config.getoption("--geodtr-report"))
