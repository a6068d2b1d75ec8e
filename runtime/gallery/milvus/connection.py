"""A connection to Milvus, a server or a file of Milvus Lite, and plain messages for its errors."""

import logging
import os
import shutil
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from geodtr.runtime.errors import GalleryError, MissingDependency
from geodtr.runtime.files import locked
from geodtr.runtime.gallery.location import TOKEN, MilvusLocation, closed, command
from geodtr.runtime.installation import install_hint

_TIMEOUT = 5.0
"""Timeout for connecting, in seconds."""
_LOCK = "LOCK"
"""The lock file of Milvus Lite against a second process."""
_users = Counter[Path]()
_users_lock = threading.Lock()


def connect(place: MilvusLocation, may_create: bool, closes: ExitStack) -> Any:
    """A MilvusClient; `closes` closes it, and Milvus Lite when nothing else in this process uses the file."""
    # Set before gRPC is imported: our errors replace its messages on standard error.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        from pymilvus import MilvusClient

        if place.file is not None:
            import milvus_lite  # noqa: F401 (only to see whether it can be imported)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("pymilvus", "milvus_lite"):
            raise
        raise MissingDependency(
            f"{place} needs {error.name}, which is not installed: {install_hint('milvus')}"
        ) from None
    for logger in ("pymilvus", "pymilvus.milvus_client", "milvus_lite"):
        logging.getLogger(logger).setLevel(logging.CRITICAL + 1)  # they also raise what they log
    if place.file is not None:
        closes.enter_context(_lite(place, place.file, may_create))
    with explained(place):
        client = MilvusClient(place.address, token=os.environ.get(TOKEN, ""), db_name=place.database, timeout=_TIMEOUT)
    closes.callback(client.close)
    return client


@contextmanager
def _lite(place: MilvusLocation, file: Path, may_create: bool) -> Iterator[None]:
    """Use a file of Milvus Lite. Raises GalleryError when there is none, or another process has it open."""
    from milvus_lite.server_manager import server_manager_instance

    file = file.absolute()
    with _users_lock:
        if not _users[file]:
            _check_file(place, file, may_create)
        _users[file] += 1
    try:
        yield
    finally:
        with _users_lock:
            _users[file] -= 1
            if not _users[file]:
                server_manager_instance.release_server(str(file))


def _check_file(place: MilvusLocation, file: Path, may_create: bool) -> None:
    if file.is_dir() and any(file.iterdir()) and not (file / _LOCK).is_file():
        raise GalleryError(f"{place} is a folder that Milvus Lite did not make. Name another path.")
    if file.exists() and not file.is_dir():
        raise GalleryError(
            f"{place} is a file; Milvus Lite keeps a database in a folder of such a name (before version 3 in a file, "
            "which it no longer reads). Name another path, and build the gallery there."
        )
    if not may_create and not (file / _LOCK).is_file():
        raise GalleryError(
            f"{place} holds no gallery. Build one: {command('build', 'BUNDLE', 'SOURCE', '--out', place)}"
        )
    if not file.parent.is_dir():
        raise GalleryError(f"{place} cannot be created: {file.parent} is not a folder.")


def remove_file(place: MilvusLocation) -> None:
    """Remove an unused file of Milvus Lite."""
    if place.file is not None:
        shutil.rmtree(place.file, ignore_errors=True)


@contextmanager
def explained(place: MilvusLocation) -> Iterator[None]:
    """Convert errors of pymilvus and gRPC into a GalleryError that names the remedy."""
    import grpc
    from pymilvus.exceptions import MilvusException

    try:
        yield
    except MilvusException as error:
        cause = error.__cause__
        raise _refusal(place, error.message, _details(cause) if isinstance(cause, grpc.RpcError) else "") from None
    except grpc.RpcError as error:
        raise _refusal(place, _details(error)) from None
    except ValueError as error:
        if "closed channel" not in str(error):
            raise
        raise closed(place) from None


def _details(error: Any) -> str:
    """gRPC's last error message."""
    details = error.details() if hasattr(error, "details") else str(error)
    return str(details or "").rpartition("last error: ")[2]


def _refusal(place: MilvusLocation, message: str, details: str = "") -> GalleryError:
    """The remedy for an error of Milvus's, with gRPC's details."""
    message, details = (" ".join(text.split()) for text in (message, details))
    known = f"{message} {details}".lower()
    if any(word in known for word in ("authoriz", "authentic", "auth check", "permission", "privilege")):
        return GalleryError(
            f"{place}: Milvus refuses ({details or message}). Set the environment variable {TOKEN} to USER:PASSWORD or "
            "an API key that may do this."
        )
    unreachable = any(word in known for word in ("fail connecting", "unavailable", "connection refused"))
    if "deadline exceeded" in known and not unreachable:
        return GalleryError(
            f"{place}: the Milvus server at {place.address} has not answered in time: it is busy, or stuck. Repeat the "
            "command when it is not; a gallery that was being built goes on where it stopped."
        )
    if unreachable:
        return GalleryError(
            f"{place}: no Milvus server answers at {place.address} ({details or message}). Is it running, is the port "
            "right, does it want TLS (milvus+https://)?"
        )
    if place.file is not None and "open local milvus failed" in known:
        if _is_open_elsewhere(place.file):
            return GalleryError(
                f"{place} is open in another process, and Milvus Lite allows one. Wait until it is done, or let a "
                "server hold the gallery: milvus://HOST:PORT/COLLECTION"
            )
        return GalleryError(f"{place} cannot be opened by Milvus Lite: it is damaged, or cannot be written.")
    return GalleryError(f"{place}: Milvus reports: {message}")


def _is_open_elsewhere(file: Path) -> bool:
    try:
        with locked(file / _LOCK) as held:
            return held == "another's"
    except OSError:
        return False
