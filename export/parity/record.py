"""A run's verdicts, written into the bundles that they are about."""

from pathlib import Path

import msgspec

from geodtr.export.parity.result import Candidate, ParityFigures
from geodtr.runtime.errors import UserError
from geodtr.runtime.manifest import ParityEntry, read_manifest, write_manifest


def record(figures: ParityFigures) -> tuple[str, ...]:
    """Write each candidate's verdict into its manifest, in place of an earlier one by the same reference on the same
    data. Returns why, for each bundle that cannot be written.
    """
    faults = list[str]()
    for candidate in figures.candidates:
        bundle, entry = Path(candidate.path), _entry(figures, candidate)
        manifest = read_manifest(bundle)
        others = (
            old for old in manifest.parity if (old.data_sha256, old.reference) != (entry.data_sha256, entry.reference)
        )
        try:
            write_manifest(bundle, msgspec.structs.replace(manifest, parity=(*others, entry)))
        except UserError as error:
            faults.append(str(error))
    return tuple(faults)


def _entry(figures: ParityFigures, candidate: Candidate) -> ParityEntry:
    gate = candidate.gate
    return ParityEntry(
        reference=figures.reference.name,
        data=figures.data,
        data_sha256=figures.data_sha256,
        pairs=figures.pairs,
        reference_at_1=figures.reference.recall.at_1,
        at_1=candidate.own.recall.at_1,
        drop=gate.drop,
        low=gate.low,
        high=gate.high,
        max_drop=gate.max_drop,
        certain=gate.certain,
        accepted=gate.accepted,
        pairs_to_decide=gate.pairs_to_decide,
        smallest_cosine=candidate.smallest_cosine,
        machine=figures.machine,
        verdict=gate.verdict,
        reasons=gate.reasons if candidate.next_step is None else (*gate.reasons, candidate.next_step),
    )
