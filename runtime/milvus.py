"""Collections of Milvus, on a server or in a file of Milvus Lite: the one file that knows pymilvus and how it fails.

Knows entities and their fields; knows nothing of tiles or embedding spaces.
"""

import logging
import os
import shutil
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from geodtr.runtime.errors import GalleryError, MissingDependency
from geodtr.runtime.gallery_place import TOKEN, MilvusPlace
from geodtr.runtime.locks import locked
from geodtr.runtime.names import Index
from geodtr.runtime.spec import Descriptors

MOST_HITS = 16_384
"""Milvus gives a query no more hits than that."""
LONGEST_TEXT = 65_535
"""Bytes of UTF-8 that a text field holds at most."""

Entity = dict[str, Any]
Consistency = Literal["Strong", "Bounded"]
"""Strong sees all that was confirmed before, at the price of waiting for it; Bounded may miss the last seconds."""

KEY, VECTOR = "row", "descriptor"
_UNKNOWN = -1e9
"""What stands in a number's field where the number is not known: servers before Milvus 2.5 have no null."""
_CONNECT, _CALL, _LOAD = 5.0, 30.0, 600.0
"""Seconds until a server counts as unreachable, a call as lost, and loading a collection into its memory as failed."""
_REQUEST_VALUES = 1 << 21
"""Numbers of descriptors in one message; gRPC's messages are limited to 64 MB on either side, most of them to less."""
_REQUEST_KEYS = 4096
_TYPES: dict[Index, str] = {"flat": "FLAT", "hnsw": "HNSW", "auto": "AUTOINDEX"}
_BUILD: dict[Index, dict[str, int]] = {"flat": {}, "hnsw": {"M": 32, "efConstruction": 360}, "auto": {}}
_LEAST_EF = 128
"""How much of a graph HNSW looks at for each query, at least."""

_LOCK = "LOCK"
"""The file by which Milvus Lite keeps a second process out."""
_users = Counter[Path]()
_users_lock = threading.Lock()


@dataclass(frozen=True, slots=True)
class Field:
    """A field beside the key and the vector: a text, a whole number, or a number that may be unknown."""

    name: str
    kind: Literal["text", "whole", "number"]


@dataclass(frozen=True, slots=True)
class Found:
    """Hits of one query, best first: keys [K], inner products [K], and the fields that were asked for."""

    keys: list[int]
    scores: list[float]
    entities: list[Entity]


class Collection:
    """A connection to the collection that a place names, which need not exist yet. Safe to use from several threads.

    Every method raises GalleryError when the server cannot be reached or refuses.
    """

    def __init__(self, place: MilvusPlace, *, may_create: bool = False) -> None:
        """Connect. `may_create`: a file of Milvus Lite is made where there is none.

        Raises MissingDependency, GalleryError when there is no such file or server.
        """
        self.place = place
        self._name = place.collection
        with ExitStack() as closes:
            self._client = _connect(place, may_create, closes)
            self._close = weakref.finalize(self, closes.pop_all().close)

    def close(self) -> None:
        self._close()

    @property
    def version(self) -> str:
        """What answers: Milvus Lite or a server, with its version."""
        version = str(self._call(self._client.get_server_version))
        return f"Milvus Lite {version.removeprefix('milvus_lite-')}" if self.place.file else f"Milvus {version}"

    def exists(self) -> bool:
        return bool(self._call(self._client.has_collection, self._name))

    def others(self) -> list[str]:
        """The collections that the database has."""
        return sorted(self._call(self._client.list_collections))

    def create(self, fields: Sequence[Field], size: int, index: Index, properties: Mapping[str, str]) -> None:
        """Make the collection, its vectors float32 of `size` and compared by their inner product."""
        from pymilvus import DataType, MilvusClient

        schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field(KEY, DataType.INT64, is_primary=True)
        for field in fields:
            if field.kind == "text":
                schema.add_field(field.name, DataType.VARCHAR, max_length=LONGEST_TEXT)
            elif field.kind == "whole":
                schema.add_field(field.name, DataType.INT64)
            else:
                schema.add_field(field.name, DataType.DOUBLE)
        schema.add_field(VECTOR, DataType.FLOAT_VECTOR, dim=size)
        indexes = MilvusClient.prepare_index_params()
        indexes.add_index(VECTOR, index_type=_TYPES[index], metric_type="IP", params=_BUILD[index])
        asked = {"schema": schema, "index_params": indexes, "properties": dict(properties)}
        self._call(self._client.create_collection, self._name, consistency_level="Strong", **asked)

    def drop(self) -> None:
        """Remove the collection with all that it holds."""
        self._call(self._client.drop_collection, self._name)

    def properties(self) -> dict[str, str]:
        """What was said of the collection."""
        return dict(self._call(self._client.describe_collection, self._name).get("properties", {}))

    def put_properties(self, properties: Mapping[str, str]) -> None:
        """Say more, or something else, of the collection."""
        self._call(self._client.alter_collection_properties, self._name, properties=dict(properties))

    def vector_size(self) -> int | None:
        """How many numbers a vector has; None where the collection has no such vectors."""
        for field in self._call(self._client.describe_collection, self._name)["fields"]:
            if field["name"] == VECTOR:
                return int(field["params"]["dim"])
        return None

    def index(self) -> str:
        """The vectors' index, by Milvus's name."""
        for name in self._call(self._client.list_indexes, self._name):
            found = self._call(self._client.describe_index, self._name, name)
            if found.get("field_name") == VECTOR:
                return str(found["index_type"])
        return "none"

    def load(self) -> None:
        """Let the server take the collection into its memory, unless it has."""
        if self._call(self._client.get_load_state, self._name)["state"].name != "Loaded":
            self._call(self._client.load_collection, self._name, timeout=_LOAD)

    def count(self, where: str = "") -> int:
        """How many entities there are, of those that the filter `where` lets through."""
        found = self._call(
            self._client.query, self._name, filter=where, output_fields=["count(*)"], consistency_level="Strong"
        )
        return int(found[0]["count(*)"])

    def get(self, keys: Sequence[int], fields: Sequence[str]) -> dict[int, Entity]:
        """The entities with these keys; those that do not exist are not in it."""
        found = dict[int, Entity]()
        for start in range(0, len(keys), _REQUEST_KEYS):
            part = [int(key) for key in keys[start : start + _REQUEST_KEYS]]
            asked = {"ids": part, "output_fields": [KEY, *fields], "consistency_level": "Strong"}
            for entity in self._call(self._client.query, self._name, **asked):
                found[entity[KEY]] = _as_asked(entity)
        return found

    def each(self, fields: Sequence[str], at_once: int) -> Iterator[list[Entity]]:
        """All entities in the order of their keys, `at_once` of them at most; those of the moment of the first call."""
        entities = self._call(
            self._client.query_iterator,
            self._name,
            batch_size=min(at_once, MOST_HITS),
            filter=f"{KEY} >= 0",
            output_fields=[KEY, *fields],
            consistency_level="Strong",
        )
        try:
            while block := self._explained(entities.next):
                yield [_as_asked(entity) for entity in block]
        finally:
            with suppress(GalleryError):
                self._explained(entities.close)

    def search(self, queries: Descriptors, top: int, index: str, where: str, fields: Sequence[str]) -> list[Found]:
        """The `top` entities, of those that `where` lets through, with the largest inner product to each query."""
        params = {"ef": max(_LEAST_EF, 2 * top)} if index == "HNSW" else {}
        found = list[Found]()
        for part in _parts(len(queries), max(queries.shape[1], 4 * top)):
            answers = self._call(
                self._client.search,
                self._name,
                data=list(queries[part]),
                anns_field=VECTOR,
                limit=top,
                filter=where,
                output_fields=list(fields),
                search_params={"metric_type": "IP", "params": params},
                consistency_level="Bounded",
            )
            found += [_found(hits) for hits in answers]
        return found

    def upsert(self, entities: Sequence[Mapping[str, Any]], vectors: NDArray[np.float32]) -> None:
        """Keep entities with their vectors [N, size]; one of the same key is replaced. None: a number is not known."""
        for part in _parts(len(vectors), vectors.shape[1]):
            pairs = zip(entities[part], vectors[part], strict=True)
            self._call(self._client.upsert, self._name, [_as_kept(entity, vector) for entity, vector in pairs])

    def delete(self, keys: Sequence[int]) -> None:
        for start in range(0, len(keys), _REQUEST_KEYS):
            self._call(self._client.delete, self._name, ids=list(keys[start : start + _REQUEST_KEYS]))

    def flush(self) -> None:
        """Have what was written put into the server's lasting storage, and wait for it."""
        self._call(self._client.flush, self._name, timeout=_LOAD)

    def _call(self, method: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        return self._explained(method, *arguments, **{"timeout": _CALL, **named})

    def _explained(self, method: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        with _explained(self.place):
            return method(*arguments, **named)


def block_of(size: int) -> int:
    """How many entities with vectors of `size` are asked for at once."""
    return max(1, min(_REQUEST_KEYS, _REQUEST_VALUES // size))


def _parts(count: int, width: int) -> Iterator[slice]:
    """Runs of `count` rows of `width` numbers that one message holds."""
    step = max(1, _REQUEST_VALUES // max(1, width))
    return (slice(start, min(start + step, count)) for start in range(0, count, step))


def _found(hits: Any) -> Found:
    return Found(list(hits.ids), list(hits.distances), [_as_asked(hit["entity"]) for hit in hits])


def _as_kept(entity: Mapping[str, Any], vector: NDArray[np.float32]) -> Entity:
    return {VECTOR: vector, **{name: _UNKNOWN if value is None else value for name, value in entity.items()}}


def _as_asked(entity: Mapping[str, Any]) -> Entity:
    return {name: None if isinstance(value, float) and value == _UNKNOWN else value for name, value in entity.items()}


def _connect(place: MilvusPlace, may_create: bool, closes: ExitStack) -> Any:
    """A MilvusClient; `closes` lets go of it, and of Milvus Lite when nobody else of this process uses the file."""
    # Before gRPC is loaded: what it has to say on standard error is said in our own words.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        from pymilvus import MilvusClient

        if place.file is not None:
            import milvus_lite  # noqa: F401
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("pymilvus", "milvus_lite"):
            raise
        raise MissingDependency(
            f"{place} is reached by {error.name}, which is not installed: pip install 'geodtr-export[milvus]'"
        ) from None
    for logger in ("pymilvus", "pymilvus.milvus_client", "milvus_lite"):
        logging.getLogger(logger).setLevel(logging.CRITICAL + 1)  # what they log, they raise as well
    if place.file is not None:
        closes.enter_context(_lite(place, place.file, may_create))
    with _explained(place):
        client = MilvusClient(place.address, token=os.environ.get(TOKEN, ""), db_name=place.database, timeout=_CONNECT)
    closes.callback(client.close)
    return client


@contextmanager
def _lite(place: MilvusPlace, file: Path, may_create: bool) -> Iterator[None]:
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


def _check_file(place: MilvusPlace, file: Path, may_create: bool) -> None:
    if file.is_dir() and any(file.iterdir()) and not (file / _LOCK).is_file():
        raise GalleryError(f"{place} is a folder that Milvus Lite did not make. Name another place.")
    if file.exists() and not file.is_dir():
        raise GalleryError(
            f"{place} is a file; Milvus Lite keeps a database in a folder of such a name (before its version 3 in a "
            "file, which it reads no more). Name another place, and build the gallery there."
        )
    if not may_create and not (file / _LOCK).is_file():
        raise GalleryError(
            f"{place} holds no gallery. Build one: geodtr-export gallery build BUNDLE SOURCE --out {place}"
        )
    if not file.parent.is_dir():
        raise GalleryError(f"{place} cannot be made: {file.parent} is not a folder.")


def remove_file(place: MilvusPlace) -> None:
    """Remove a file of Milvus Lite that nobody uses."""
    if place.file is not None:
        shutil.rmtree(place.file, ignore_errors=True)


@contextmanager
def _explained(place: MilvusPlace) -> Iterator[None]:
    """Turn what pymilvus and gRPC raise into a GalleryError that says what to do."""
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
        raise GalleryError(f"{place} was closed.") from None


def _details(error: Any) -> str:
    """What gRPC says went wrong, in its last words."""
    details = error.details() if hasattr(error, "details") else str(error)
    return str(details or "").rpartition("last error: ")[2]


def _refusal(place: MilvusPlace, said: str, details: str = "") -> GalleryError:
    """What the user can do about an error of Milvus's, with what gRPC adds to it."""
    said, details = (" ".join(text.split()) for text in (said, details))
    known = f"{said} {details}".lower()
    if any(word in known for word in ("authoriz", "authentic", "auth check", "permission", "privilege")):
        return GalleryError(
            f"{place}: Milvus refuses ({details or said}). Set the environment variable {TOKEN} to USER:PASSWORD or an "
            "API key that may do this."
        )
    if any(word in known for word in ("fail connecting", "unavailable", "connection refused", "deadline exceeded")):
        return GalleryError(
            f"{place}: no Milvus server answers at {place.address} ({details or said}). Is it running, is the port "
            "right, does it want TLS (milvus+https://)?"
        )
    if place.file is not None and "open local milvus failed" in known:
        if _is_open_elsewhere(place.file):
            return GalleryError(
                f"{place} is open in another process, and Milvus Lite allows one. Wait until it is done, or let a "
                "server hold the gallery: milvus://HOST:PORT/COLLECTION"
            )
        return GalleryError(f"{place} cannot be opened by Milvus Lite: it is damaged, or cannot be written.")
    return GalleryError(f"{place}: Milvus says: {said}")


def _is_open_elsewhere(file: Path) -> bool:
    try:
        with locked(file / _LOCK) as held:
            return held == "another's"
    except OSError:
        return False
