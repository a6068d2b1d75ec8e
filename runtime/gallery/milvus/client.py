"""Collections of Milvus, on a server or in a file of Milvus Lite: with milvus_connection.py all that knows pymilvus.

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
"""Milvus gives a query no more hits than that."""
LONGEST_TEXT = 65_535
"""Bytes of UTF-8 that a text field holds at most."""

Entity = dict[str, Any]
Consistency = Literal["Strong", "Bounded"]
"""Strong sees all that was confirmed before, at the price of waiting for it; Bounded may miss the last seconds."""

KEY, VECTOR = "row", "descriptor"
_UNKNOWN = -1e9
"""What stands in a number's field where the number is not known: servers before Milvus 2.5 have no null."""
_CALL, _LOAD = 30.0, 600.0
"""Seconds until a call counts as lost, and loading a collection into the server's memory as failed."""
_REQUEST_VALUES = 1 << 21
"""Numbers of descriptors in one message; gRPC's messages are limited to 64 MB on either side, most of them to less."""
_REQUEST_KEYS = 4096
_TYPES: dict[Index, str] = {"flat": "FLAT", "hnsw": "HNSW", "auto": "AUTOINDEX"}
_BUILD: dict[Index, dict[str, int]] = {"flat": {}, "hnsw": {"M": 32, "efConstruction": 360}, "auto": {}}
_LEAST_EF = 128
"""How much of a graph HNSW looks at for each query, at least."""


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

    def __init__(self, place: MilvusLocation, *, may_create: bool = False) -> None:
        """Connect. `may_create`: a file of Milvus Lite is made where there is none.

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
        with explained(self.place):
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
