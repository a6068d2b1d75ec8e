"""Parity in a project's own tests: the fixture `geodtr_parity`, and the option `--geodtr-report`.

Every pytest run loads this file where geodtr-export is installed: all that is heavy is imported inside the call.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from geodtr.export.parity import Gates
    from geodtr.export.parity.result import ParityResult
    from geodtr.runtime.names import Precision, PrecisionAsked


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that names the folder of reports."""
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
        min_cosine: "Mapping[PrecisionAsked, float] | None" = None,
        require_certain: bool = False,
        accept_undecided: bool = False,
        max_compact_drop: float | None = None,
        stages: bool = True,
    ) -> "ParityResult":
        """Hold bundles against a checkpoint or a bundle, as `geodtr-export parity` does; nothing is written to them.

        `data` is a SPEC, of which the first `limit` pairs are used. By precision (auto for blocks chosen by recall),
        where not the default: `max_drop`, points by which R@1 may fall; `min_cosine`, the smallest cosine of a
        descriptor with the reference's. `accept_undecided`: for few pairs, undecided recall passes where the measured
        drop is within the allowed one. `max_compact_drop`: points by which R@1 of projected descriptors may fall, where
        not the default. `require_certain`: a typed graph that could not be read is undecided as well.
        `stages`: run the ONNX files as well, so that a loss is blamed on a step; without them a call takes a third of
        the time. Returns the result when every candidate passes; otherwise, and where nothing can be compared, the test
        fails with the reasons and the command to run next.
        """
        __tracebackhide__ = True
        from geodtr.runtime.errors import MissingDependency, UserError
        from geodtr.runtime.installation import naming_extras

        try:
            gates = _gates(max_drop or {}, min_cosine or {}, require_certain, accept_undecided)
            if max_compact_drop is not None:
                gates = replace(gates, max_compact_drop=max_compact_drop)
            bundles = [Path(path) for path in candidates]
            with naming_extras():
                result = self._compare(Path(reference), bundles, data, limit, gates, stages)
        except MissingDependency as error:
            pytest.fail(f"geodtr_parity: {error}. A float32 bundle and stages=False need no extra.", pytrace=False)
        except UserError as error:
            pytest.fail(f"geodtr_parity: {error}", pytrace=False)
        if not result.passed:
            pytest.fail(self._message(result), pytrace=False)
        return result

    def _compare(
        self, reference: Path, candidates: list[Path], data: str, limit: int | None, gates: "Gates", stages: bool
    ) -> "ParityResult":
        from geodtr.export.model import open_model
        from geodtr.export.parity import compare
        from geodtr.export.report import check_report, write_report
        from geodtr.runtime.errors import ConfigError
        from geodtr.training.data.spec import read_test_set

        if not candidates:
            raise ConfigError("Name at least one candidate: geodtr_parity(REFERENCE, BUNDLE, data=SPEC).")

        self._calls += 1
        report = self._report()
        if report is not None:
            check_report(report, replace=True)
        if limit is not None and limit < 2:
            raise ConfigError(f"limit is {limit}; recall needs at least 2 pairs.")
        pair_set, models = read_test_set(data, limit), [open_model(path) for path in candidates]
        result = compare(open_model(reference), models, pair_set, gates=gates, stages=stages)
        if report is not None:
            write_report(result, report, replace=True)
        return result

    def _report(self) -> Path | None:
        """Where this call's report goes."""
        number = f"-{self._calls}" if self._calls > 1 else ""
        return None if self._reports is None else self._reports / f"{self._test}{number}.html"

    def _message(self, result: "ParityResult") -> str:
        from geodtr.export.report.words import headline, summary

        lines = [f"{headline(result)}, on {result.figures.pairs:,} pairs of {result.figures.data}."]
        for candidate in result.candidates:
            lines.append(f"{candidate.name}: {candidate.gate.verdict}. {summary(candidate)}")
            if candidate.gate.verdict != "passed":
                lines += [f"  - {reason}" for reason in candidate.gate.reasons]
            if candidate.next_step is not None:
                lines.append(f"  Next: {candidate.next_step}")
        report = self._report()
        lines.append("A report: pytest --geodtr-report DIR" if report is None else f"Report: {report}")
        return "\n".join(lines)


def _gates(
    max_drop: "Mapping[PrecisionAsked, float]",
    min_cosine: "Mapping[PrecisionAsked, float]",
    require_certain: bool,
    accept_undecided: bool,
) -> "Gates":
    from geodtr.export.parity import Gates

    drops = _by_precision("max_drop", max_drop, 100, "points of R@1")
    cosines = _by_precision("min_cosine", min_cosine, 1, "as a cosine")
    return Gates(drops, cosines, require_certain, accept_undecided)


def _by_precision(
    what: str, asked: "Mapping[PrecisionAsked, float]", largest: float, unit: str
) -> "dict[Precision, float]":
    from geodtr.runtime.errors import ConfigError
    from geodtr.runtime.names import PRECISIONS, asked_as

    names = {asked_as(precision): precision for precision in PRECISIONS}
    for name, number in asked.items():
        if name not in names or not 0 <= number <= largest:
            raise ConfigError(
                f"{what} has {name!r}: {number}; allowed are {', '.join(names)}, each with 0 to {largest:g} {unit}."
            )
    return {names[name]: number for name, number in asked.items()}


@pytest.fixture
def geodtr_parity(request: pytest.FixtureRequest) -> ParityCheck:
    """Fail the test unless engines find what the reference model finds: geodtr_parity(REFERENCE, BUNDLE, data=SPEC)."""
    return ParityCheck(request.node.nodeid, request.config.getoption("--geodtr-report"))
