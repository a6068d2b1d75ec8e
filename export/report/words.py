"""The report's sentences: the verdict, its evidence, and the stage that lost recall."""

from collections.abc import Sequence

from geodtr.export.parity.measurements import PAIRINGS, StageName
from geodtr.export.parity.result import Candidate, CheckName, Gate, ParityResult
from geodtr.export.plots.numbers import counted, listed, percent, points

STAGES: dict[StageName, str] = {
    "onnx": "float32 ONNX",
    "typed": "typed ONNX",
    "engine": "engine",
}
CHECKS: dict[CheckName, str] = {
    "recall": "recall",
    "cosine": "cosines",
    "promise": "the build’s promise",
    "finite": "finite values",
    "length": "unit length",
    "batches": "batch invariance",
    "preprocessing": "preprocessing",
    "graph": "graph",
}


def headline(result: ParityResult) -> str:
    """The verdict in one line."""
    names = {
        verdict: tuple(each.name for each in result.candidates if each.gate.verdict == verdict)
        for verdict in ("passed", "failed", "undecided")
    }
    failed, undecided, passed = names["failed"], names["undecided"], names["passed"]
    if failed:
        return f"Failed: {_those(failed)} {_verb(failed, 'does', 'do')} not pass"
    if undecided:
        small = tuple(each.name for each in result.candidates if each.name in undecided and each.gate.recall_is_open)
        return (
            f"Undecided: too few pairs to decide the recall of {_those(small)}"
            if small
            else f"Undecided: the graph of {_those(undecided)} could not be read"
        )
    accepted = tuple(each.name for each in result.candidates if each.gate.accepted)
    if accepted:
        return f"Passed, with the recall of {_those(accepted)} undecided and accepted"
    return f"Passed: {_those(passed)} {_verb(passed, 'loses', 'lose')} no more than allowed"


def sureness(result: ParityResult) -> str:
    """Whether the pairs decide recall, for all candidates together, and how many would."""
    pairs = f"{counted(result.figures.pairs, 'pair')} against {result.figures.reference.name}"
    if all(candidate.gate.certain is None for candidate in result.candidates):
        return f"{pairs}. No drop is allowed, which no number of pairs can prove: the cosine of every image decides."
    small = [candidate.name for candidate in result.candidates if candidate.gate.recall_is_open]
    if not small:
        return f"{pairs} decide recall."
    enough = result.figures.pairs_to_decide
    more = "" if enough is None else f" About {enough:,} would, if hits change at the same rate."
    return f"{pairs} do not decide the recall of {_those(small)}.{more}"


def doubts(result: ParityResult) -> tuple[str, ...]:
    """The reasons not to trust recall, for each model."""
    models = [(result.figures.reference.name, result.figures.reference.recall)]
    models += [(candidate.name, candidate.own.recall) for candidate in result.candidates]
    collapsed = (
        f"{name}: the descriptors have collapsed. Two different images have a cosine of {recall.alike:.4f} on average; "
        "recall means nothing."
        for name, recall in models
        if recall.collapsed
    )
    tied = (
        f"{name}: {percent(recall.tied)} % of the queries have another tile exactly as close as the right one. Ties "
        f"count as hits: R@1 is {percent(recall.at_1)} % with them, {percent(recall.pessimistic_at_1)} % without."
        for name, recall in models
        if recall.tied > 0 and recall.suspicious
    )
    return (*collapsed, *tied)


def summary(candidate: Candidate) -> str:
    """The measured change of R@1, for the pairing that may have lost most, and the allowed drop."""
    gate, queries = candidate.gate, candidate.own.recall.queries
    change = next(each for each in candidate.pairings if each.name == gate.pairing).at_1
    moved = (
        "R@1 did not change"
        if change.lost == change.gained
        else f"R@1 changed by {points(change.change)} points, {percent(change.before)} to {percent(change.after)} %"
    )
    may = f"a drop of {100 * gate.max_drop:.2g} points is allowed" if gate.max_drop else "no drop is allowed"
    where = "in every way of searching" if not change.lost else f"searching with {PAIRINGS[gate.pairing]}"
    return f"{moved}: of {queries:,} queries {change.lost:,} lost and {change.gained:,} gained, {where}; {may}."


def in_order(gate: Gate) -> tuple[str, ...]:
    """The checks that passed everywhere, without those accepted as undecided."""
    bad = {check.name for check in gate.checks if check.verdict != "passed" or check.accepted}
    return tuple(CHECKS[name] for name in dict.fromkeys(check.name for check in gate.checks) if name not in bad)


def further(gate: Gate) -> tuple[str, ...]:
    """The gate's reasons beyond the words of its checks."""
    known = {check.words for check in gate.checks}
    return tuple(reason for reason in gate.reasons if reason not in known)


def loss(candidate: Candidate) -> str:
    """The stage that caused the loss, if there is one."""
    if candidate.gate.blamed is not None:
        return f"What failed the gate came in with the {STAGES[candidate.gate.blamed]}."
    worst = min(candidate.stages, key=lambda stage: stage.step.change)
    if worst.step.change < 0:
        return f"The largest step down is the {STAGES[worst.name]}: {points(worst.step.change)} points of R@1."
    return "No step lost any R@1."


def _those(names: Sequence[str]) -> str:
    return listed(names) if len(names) <= 4 else f"{len(names)} candidates"


def _verb(names: Sequence[str], one: str, many: str) -> str:
    return one if len(names) == 1 else many
