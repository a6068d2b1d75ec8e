"""Results that `evaluate --json` printed, as rows beside the papers'."""

from pathlib import Path

import msgspec

from geodtr.runtime.errors import DataError
from geodtr.runtime.files.documents import decode_json, read_document
from geodtr.runtime.recall import AveragePrecision, Recall
from geodtr.training.data.counting import HIT_RATE
from geodtr.training.data.spec import KINDS, Counts
from geodtr.training.data.views import Views
from geodtr.training.evaluation.distance import Distance
from geodtr.training.evaluation.published import Published


class _Result(msgspec.Struct):
    kind: str
    split: str
    recall: dict[str, Recall]
    average_precision: dict[str, AveragePrecision]
    distance: Distance | None


class _Document(msgspec.Struct):
    model: str
    trained_on: str | None
    views: Views
    results: list[_Result]


def read_results(path: Path) -> list[Published]:
    """The results in the file `path`, one row for each data set and way of counting; the hit rate and the distances are
    figures of the first. Raises DataError when the file is not what `evaluate --json` prints.
    """
    try:
        document = decode_json(read_document(path), _Document)
    except OSError as error:
        raise _no_results(path, f"it cannot be read: {error.strerror}") from None
    except msgspec.DecodeError as error:
        raise _no_results(path, str(error)) from None
    for result in document.results:
        for measured in result.recall.values():
            shares = (measured.at_1, measured.at_5, measured.at_10, measured.at_1_percent)
            if not all(0 <= share <= 1 for share in shares):
                raise _no_results(path, f"recall is a share from 0 to 1; it holds {max(shares):g}")
    trained_on = (document.trained_on or "").partition(":")[0]
    return [row for result in document.results for row in _rows(result, document, trained_on, str(path))]


def _no_results(path: Path, reason: str) -> DataError:
    return DataError(
        f"{path} does not hold results ({reason}). Write it: geodtr-export evaluate MODEL --data SPEC --json > {path}"
    )


def _protocol(way: str, views: Views, result: _Result, measured: Recall) -> str:
    """The way of counting, and where the test is another than the papers': the view, and how much of the split."""
    counts = KINDS[result.kind].published.get(result.split, Counts()) if result.kind in KINDS else Counts()
    sizes = zip(("queries", "references"), (measured.queries, measured.references), counts.ranked, strict=True)
    parts = [f"{ours:,} of {all_of:,} {what}" for what, ours, all_of in sizes if all_of not in (None, ours)]
    return ", ".join([way, *([] if views.as_they_are else [str(views)]), *parts])


def _rows(result: _Result, document: _Document, trained_on: str, source: str) -> list[Published]:
    how = KINDS[result.kind].average_precision if result.kind in KINDS else ""
    ways = {way: measured for way, measured in result.recall.items() if way != HIT_RATE}
    hit_rate = result.recall.get(HIT_RATE)
    rows = []
    for number, (way, measured) in enumerate(ways.items()):
        precision = result.average_precision.get(way)
        far = None if number else result.distance
        figures = [None if share is None else 100 * share for share in measured.telling]
        sdm = {k: 100 * share for k, share in far.sdm.items()} if far is not None else {}
        rows.append(
            Published(
                model=Path(document.model).name,
                data=result.kind,
                split=result.split,
                trained_on=trained_on,
                polar=None,
                layout_simulation=False,
                protocol=_protocol(way, document.views, result, measured),
                at_1=100 * measured.at_1,
                at_5=figures[1],
                at_10=figures[2],
                at_1_percent=figures[3],
                average_precision=100 * getattr(precision, how) if precision is not None and how else None,
                hit_rate=100 * hit_rate.at_1 if hit_rate is not None and not number else None,
                sdm_at_1=sdm.get(1),
                sdm_at_3=sdm.get(3),
                metres_at_1=far.metres_at_1 if far is not None else None,
                source=source,
                read_in="",
            )
        )
    return rows
