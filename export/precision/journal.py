"""The journal of a search: its measurements in a file, from which a stopped search continues."""

from collections.abc import Callable
from pathlib import Path

import msgspec

from geodtr.runtime.errors import UserError
from geodtr.runtime.files import write_bytes
from geodtr.runtime.files.documents import decode_json, read_document
from geodtr.runtime.manifest import SensitivityEntry, TrialEntry


class JournalError(UserError):
    """The file at the path of a search's journal is not a journal."""


class Journal(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The measurements of a search so far; `key` identifies the search."""

    key: str
    sensitivity: tuple[SensitivityEntry, ...] = ()
    trials: tuple[TrialEntry, ...] = ()


class Notes:
    """The journal on disk: every measurement is there before the next begins."""

    def __init__(self, path: Path, key: str, notice: Callable[[str], None]) -> None:
        self._path = path
        self.held = Journal(key=key)
        if not path.exists():
            return
        try:
            held = decode_json(read_document(path), Journal)
        except (OSError, msgspec.DecodeError) as error:
            raise JournalError(
                f"{path}, where the search keeps its measurements, is something else ({error}). Name another --out, or "
                "remove that file yourself."
            ) from None
        if held.key == key:
            self.held = held
        else:
            notice(
                f"{path} holds a search of another model, on other images, or with other options: it starts again, "
                f"and {len(held.sensitivity)} blocks and {len(held.trials)} choices that it measured are dropped."
            )

    def write(self, **changes: object) -> None:
        self.held = msgspec.structs.replace(self.held, **changes)
        write_bytes(self._path, msgspec.json.encode(self.held))
