"""What the report says in sentences: the verdict, what it rests on, which step lost it."""

from geodtr.export.parity.result import Candidate, CheckName, ParityResult, StageName
from geodtr.export.report.figures import counted, listed, percent, points

STAGES: dict[StageName, str] = {
    "onnx": "float32 ONNX",
    "typed": "typed ONNX",
    "engine": "engine",
}
CHECKS: dict[CheckName, str] = {
    "recall": "recall",
    "cosine": "cosines",
    "finite": "finite values",
    "length": "unit length",
    "batches": "batch invariance",
    "preprocessing": "preprocessing",
    "graph": "graph",
}


def headline(result: ParityResult) -> str:
    """The verdict in one line."""
    reference = result.figures.reference.name
    names = {
        verdict: tuple(each.name for each in result.candidates if each.gate.verdict == verdict)
        for verdict in ("passed", "failed", "undecided")
    }
    failed, undecided, passed = names["failed"], names["undecided"], names["passed"]
    if failed:
        return f"Failed: {_those(failed)} {_verb(failed, 'is', 'are')} not as good as {reference}"
    if undecided:
        return f"Undecided: the sample is too small to be sure of {_those(undecided)}"
    return f"Passed: {_those(passed)} {_verb(passed, 'is', 'are')} as good as {reference}"


def summary(candidate: Candidate) -> str:
    """What was measured of R@1 and what was allowed."""
    gate, queries = candidate.gate, candidate.own.recall.queries
    change = next(each for each in candidate.pairings if each.name == gate.pairing).at_1
    moved = (
        "R@1 did not change"
        if change.lost == change.gained
        else f"R@1 changed by {points(change.change)} points, {percent(change.before)} to {percent(change.after)} %"
    )
    may = "none may be lost" if not gate.may_lose else f"{counted(gate.may_lose, 'query', 'queries')} may be lost"
    return (
        f"{moved}: of {queries:,} queries {change.lost:,} lost, {change.gained:,} gained; {may}. 95 % confidence puts "
        f"the change between {points(-gate.high)} and {points(-gate.low)} points."
    )


def loss(candidate: Candidate) -> str:
    """Which step made the loss, if there is one."""
    if candidate.gate.blamed is not None:
        return f"What failed the gate came in with the {STAGES[candidate.gate.blamed]}."
    worst = min(candidate.stages, key=lambda stage: stage.step.change)
    if worst.step.change < 0:
        return f"The largest step down is the {STAGES[worst.name]}: {points(worst.step.change)} points of R@1."
    return "No step lost any R@1."


def _those(names: tuple[str, ...]) -> str:
    return listed(names) if len(names) <= 4 else f"{len(names)} candidates"


def _verb(names: tuple[str, ...], one: str, many: str) -> str:
    return one if len(names) == 1 else many
