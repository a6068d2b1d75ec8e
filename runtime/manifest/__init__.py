"""The manifest of a bundle: everything one model needs to be run rightly, readable by a person, validated when read."""

from geodtr.runtime.manifest.document import (
    FILE_NAME,
    SCHEMA,
    Manifest,
    NewerManifest,
    UnreadManifest,
    read_manifest,
    write_manifest,
)
from geodtr.runtime.manifest.engines import (
    BackendEntry,
    CompiledEntry,
    EngineEntry,
    FileEntry,
    ProjectionEntry,
    SourceEntry,
    TensorRtEntry,
    WhiteningTrial,
    runs_by,
)
from geodtr.runtime.manifest.evidence import (
    BackendChoiceEntry,
    BackendTrialEntry,
    CalibrationEntry,
    ParityEntry,
    QuantisationEntry,
    Ratio,
    SearchEntry,
    SensitivityEntry,
    Speed,
    SpeedEntry,
    TrialEntry,
    TrialSpeed,
)
