"""Collections of Milvus, on a server or in a file of Milvus Lite; only this file and connection.py use pymilvus.

Knows entities and their fields; knows nothing of tiles or embedding spaces.
"""

import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from geodtr.runtime.errors import GalleryError
from geodtr.runtime.gallery.location import MilvusLocation
from geodtr.runtime.gallery.milvus.connection import connect, explained
from geodtr.runtime.names import Index
from geodtr.runtime.spec import Descriptors

MOST_HITS = 16_384
"""Milvus's maximum number of hits per query."""
LISTED = 4096
"""Maximum number of keys that a request lists."""
LONGEST_TEXT = 65_535
"""Maximum size of a text field in bytes of UTF-8."""

Entity = dict[str, Any]
Consistency = Literal["Strong", "Bounded"]
"""Of all confirmed changes, for which a server waits 0.2 s, or of those up to some seconds ago."""

KEY, VECTOR = "row", "descriptor"
_UNKNOWN = -1e9
"""The value of a number field whose number is unknown: servers before Milvus 2.5 have no null."""
_CALL, _CHANGE, _LOAD = 30.0, 300.0, 600.0
"""Timeouts in seconds: of a call; of one that changes entities or waits for all changes, for which a busy server may
take minutes; of loading a collection into the server's memory."""
_REQUEST_VALUES = 1 << 21
"""Descriptor values in one message; gRPC limits messages to 64 MB or less."""
_TYPES: dict[Index, str] = {"flat": "FLAT", "hnsw": "HNSW", "auto": "AUTOINDEX"}
_BUILD: dict[Index, dict[str, int]] = {"flat": {}, "hnsw": {"M": 32, "efConstruction": 360}, "auto": {}}
_LEAST_EF = 128
"""Minimum of HNSW's search parameter ef."""


@dataclass(frozen=True, slots=True)
class Field:
    """A field beside the key and the vector: a text, a whole number, or a number that may be unknown."""

    name: str
    kind: Literal["text", "whole", "number"]


@dataclass(frozen=True, slots=True)
class Found:
    """Hits of one query, best first: keys [K], inner products [K], and the requested fields."""

    keys: list[int]
    scores: list[float]
    entities: list[Entity]


class Collection:
    """A connection to the collection of a location, which need not exist yet. Safe to use from several threads.

    Every method raises GalleryError when the server cannot be reached or refuses.
    """

    def __init__(self, place: MilvusLocation, *, may_create: bool = False) -> None:
        """Connect. `may_create`: create a missing file of Milvus Lite.

        Raises MissingDependency, GalleryError when there is no such file or server.
        """
        self.place = place
        self._name = place.collection
        with ExitStack() as closes:
            self._client = connect(place, may_create, closes)
            self._close = weakref.finalize(self, closes.pop_all().close)

    def close(self) -> None:
        self._close()

    @property
    def closed(self) -> bool:
        return not self._close.alive

    @property
    def version(self) -> str:
        """Milvus Lite or Milvus, with its version."""
        version = str(self._call(self._client.get_server_version))
        return f"Milvus Lite {version.removeprefix('milvus_lite-')}" if self.place.file else f"Milvus {version}"

    def exists(self) -> bool:
        return bool(self._call(self._client.has_collection, self._name))

    def others(self) -> list[str]:
        """The database's collections."""
        return sorted(self._call(self._client.list_collections))

    def create(self, fields: Sequence[Field], size: int, index: Index, properties: Mapping[str, str]) -> None:
        """Create the collection with float32 vectors of `size`, compared by inner product."""
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
        options = {"schema": schema, "index_params": indexes, "properties": dict(properties)}
        self._call(self._client.create_collection, self._name, consistency_level="Strong", **options)

    def drop(self) -> None:
        """Remove the collection and its content."""
        self._call(self._client.drop_collection, self._name)

    def properties(self) -> dict[str, str]:
        """The collection's properties."""
        return dict(self._call(self._client.describe_collection, self._name).get("properties", {}))

    def put_properties(self, properties: Mapping[str, str]) -> None:
        """Add or replace properties of the collection."""
        self._call(self._client.alter_collection_properties, self._name, properties=dict(properties))

    def vector_size(self) -> int | None:
        """The size of a vector; None if the collection has no descriptors."""
        for field in self._call(self._client.describe_collection, self._name)["fields"]:
            if field["name"] == VECTOR:
                return int(field["params"]["dim"])
        return None

    def index(self) -> str:
        """The vectors' index, by Milvus's name."""
        for name in self._call(self._client.list_indexes, self._name):
            index = self._call(self._client.describe_index, self._name, name)
            if index.get("field_name") == VECTOR:
                return str(index["index_type"])
        return "none"

    def load(self) -> None:
        """Load the collection into the server's memory, unless it is loaded."""
        if self._call(self._client.get_load_state, self._name)["state"].name != "Loaded":
            self._call(self._client.load_collection, self._name, timeout=_LOAD)

    def count(self, where: str = "") -> int:
        """The number of entities that pass the filter `where`."""
        options = {"filter": where, "output_fields": ["count(*)"], "consistency_level": "Strong"}
        answer = self._call(self._client.query, self._name, timeout=_CHANGE, **options)
        return int(answer[0]["count(*)"])

    def get(self, keys: Sequence[int], fields: Sequence[str], consistency: Consistency = "Strong") -> dict[int, Entity]:
        """The entities with these keys, without missing ones."""
        entities = dict[int, Entity]()
        # Keys alone fit into one answer; each more is another wait.
        step = LISTED if fields else MOST_HITS
        timeout = _CHANGE if consistency == "Strong" else _CALL
        for start in range(0, len(keys), step):
            part = [int(key) for key in keys[start : start + step]]
            options = {"ids": part, "output_fields": [KEY, *fields], "consistency_level": consistency}
            for entity in self._call(self._client.query, self._name, timeout=timeout, **options):
                entities[entity[KEY]] = _decoded(entity)
        return entities

    def each(self, fields: Sequence[str], at_once: int) -> Iterator[list[Entity]]:
        """All entities as of the first call, in the order of their keys, in blocks of at most `at_once`."""
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
                yield [_decoded(entity) for entity in block]
        finally:
            with suppress(GalleryError):
                self._explained(entities.close)

    def search(self, queries: Descriptors, top: int, index: str, where: str, fields: Sequence[str]) -> list[Found]:
        """The `top` entities that pass `where` with the largest inner product to each query."""
        params = {"ef": max(_LEAST_EF, 2 * top)} if index == "HNSW" else {}
        results = list[Found]()
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
            results += [_as_found(hits) for hits in answers]
        return results

    def upsert(self, entities: Sequence[Mapping[str, Any]], vectors: NDArray[np.float32]) -> None:
        """Store entities with their vectors [N, size], replacing equal keys. None marks an unknown number."""
        for part in _parts(len(vectors), vectors.shape[1]):
            pairs = zip(entities[part], vectors[part], strict=True)
            encoded = [_encoded(entity, vector) for entity, vector in pairs]
            self._call(self._client.upsert, self._name, encoded, timeout=_CHANGE)

    def delete(self, keys: Sequence[int]) -> None:
        for start in range(0, len(keys), LISTED):
            self._call(self._client.delete, self._name, ids=list(keys[start : start + LISTED]), timeout=_CHANGE)

    def flush(self) -> None:
        """Wait until the server has written all changes to persistent storage."""
        self._call(self._client.flush, self._name, timeout=_LOAD)

    def _call(self, method: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        return self._explained(method, *arguments, **{"timeout": _CALL, **named})

    def _explained(self, method: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        with explained(self.place):
            return method(*arguments, **named)


def block_of(size: int) -> int:
    """The number of entities with vectors of `size` in one request."""
    return max(1, min(LISTED, _REQUEST_VALUES // size))


def _parts(count: int, width: int) -> Iterator[slice]:
    """Slices of `count` rows of `width` numbers that fit into one message."""
    step = max(1, _REQUEST_VALUES // max(1, width))
    return (slice(start, min(start + step, count)) for start in range(0, count, step))


def _as_found(hits: Any) -> Found:
    return Found(list(hits.ids), list(hits.distances), [_decoded(hit["entity"]) for hit in hits])


def _encoded(entity: Mapping[str, Any], vector: NDArray[np.float32]) -> Entity:
    return {VECTOR: vector, **{name: _UNKNOWN if value is None else value for name, value in entity.items()}}


def _decoded(entity: Mapping[str, Any]) -> Entity:
    return {name: None if isinstance(value, float) and value == _UNKNOWN else value for name, value in entity.items()}
