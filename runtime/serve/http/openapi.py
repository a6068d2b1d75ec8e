"""The specification of the HTTP API, OpenAPI 3.1, with its schemas written from the types of the answers."""

from collections.abc import Sequence
from typing import Any

import msgspec

import geodtr
from geodtr.runtime.serve.http.messages import (
    MOST_HEAT,
    MOST_IN_BATCH,
    MOST_RADIUS,
    MOST_TOP,
    MULTIPART,
    ONE_IMAGE,
)
from geodtr.runtime.serve.options import ServeOptions
from geodtr.runtime.serve.replies import (
    BatchReply,
    ErrorReply,
    FrameEvent,
    Health,
    Reply,
    SourceReply,
    StateReply,
    TrailEvent,
)

_MAX_PATH = 999_999_999
_FILE = {"type": "string", "format": "binary"}
_ERRORS = {
    400: "A parameter or a form is wrong.",
    401: "The token is missing or wrong.",
    403: "A page of another server asks.",
    404: "There is no such thing, or no longer.",
    408: "The body took too long.",
    413: "The body is too large.",
    415: "The body is of another type, or encoded.",
    421: "The server was asked under a name that is not this machine's, without a token.",
    422: "The image cannot be decoded, or is none.",
    500: "The server failed; its output has the reason.",
    503: "The server has as much as it accepts, or replaces its gallery. Nothing of the request was accepted.",
}
_ALWAYS = (401, 403, 421, 500)
_POST = (400, 408, 413, 415, 422, 503)


def specification(options: ServeOptions) -> dict[str, Any]:
    """The document, for a server of these options."""
    types = (Reply, BatchReply, ErrorReply, StateReply, Health, FrameEvent, TrailEvent, SourceReply)
    _, schemas = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    document: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": "geodtr-export serve",
            "version": geodtr.__version__,
            "description": "Where images were taken, by a bundle and a gallery.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": _paths(options),
        "components": {"schemas": schemas},
    }
    if options.token is not None:
        document["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"token": []}]
    return document


def _paths(options: ServeOptions) -> dict[str, Any]:
    form = {"type": "object", "required": ["image"], "properties": {"image": _FILE}, "additionalProperties": False}
    files = {"type": "array", "items": _FILE, "minItems": 1, "maxItems": MOST_IN_BATCH}
    forms = {"type": "object", "required": ["image"], "properties": {"image": files}, "additionalProperties": False}
    encoding = {"image": {"contentType": ", ".join(ONE_IMAGE)}}
    one = {kind: {"schema": _FILE} for kind in ONE_IMAGE} | {MULTIPART: {"schema": form, "encoding": encoding}}
    limit = f"At most {options.image_bytes:,} bytes and {options.pixels:,} pixels an image"
    search = [
        _query("top", {"type": "integer", "minimum": 1, "maximum": MOST_TOP, "default": 5}, "Number of candidates."),
        _query("near", _NEAR, "Search only tiles within this circle: latitude, longitude, radius in metres."),
        _query(
            "heat",
            {"type": "integer", "minimum": 0, "maximum": MOST_HEAT, "default": 0},
            "Return the scores at the places of so many of the nearest tiles.",
        ),
    ]
    gallery = _query("gallery", {"type": "integer", "minimum": 0}, "The gallery of the answer; 404 for an earlier one.")
    picture = {"image/webp": {"schema": _FILE}}
    return {
        "/v1/locate": _post("Locate one image.", f"{limit}.", "Reply", search, one),
        "/v1/locate/batch": _post(
            "Locate several images.",
            f"Up to {MOST_IN_BATCH} files named image, together at most {options.batch_bytes:,} bytes. {limit}. An "
            "image that cannot be answered has its own error; the others are answered.",
            "BatchReply",
            search,
            {MULTIPART: {"schema": forms, "encoding": encoding}},
        ),
        "/v1/stream": _get(
            "Watch the live view.",
            "Server-sent events: source (SourceReply), trail (TrailEvent), frame (FrameEvent), gallery "
            "(GalleryReply), and heartbeat where nothing else comes.",
            {200: {"text/event-stream": {"schema": {"type": "string"}}}},
            (503,),
        ),
        "/v1/state": _get("What the server works with.", "", {200: _json("StateReply")}),
        "/v1/frames/{number}": _get(
            "The picture of a frame of the live view.",
            "The last few are kept.",
            {200: {"image/jpeg": {"schema": _FILE}}},
            (404,),
            [_path("number")],
        ),
        "/v1/tiles/{row}": _get(
            "The picture of a gallery's tile.",
            "Read from where the gallery was built from, while that is still there.",
            {200: picture},
            (400, 404),
            [_path("row"), gallery],
        ),
        "/v1/map/{zoom}/{x}/{y}": _get(
            "A square of the map, in web Mercator.",
            "204 where the gallery shows nothing.",
            {200: picture, 204: None},
            (400, 404),
            [_path("zoom"), _path("x"), _path("y"), gallery],
        ),
        "/healthz": _get("Whether all is well.", "Needs no token.", {200: _json("Health")}, security=[]),
        "/metrics": _get("Figures for Prometheus.", "", {200: {"text/plain": {"schema": {"type": "string"}}}}),
        "/openapi.json": _get("This document.", "", {200: {"application/json": {"schema": {"type": "object"}}}}),
    }


_NEAR = {
    "type": "array",
    "minItems": 3,
    "maxItems": 3,
    "prefixItems": [
        {"type": "number", "minimum": -90, "maximum": 90},
        {"type": "number", "minimum": -180, "maximum": 180},
        {"type": "number", "exclusiveMinimum": 0, "maximum": MOST_RADIUS},
    ],
    "items": False,
}


def _get(
    summary: str,
    description: str,
    answers: dict[int, Any],
    errors: tuple[int, ...] = (),
    parameters: Sequence[dict[str, Any]] = (),
    **more: Any,
) -> dict[str, Any]:
    return {"get": _operation(summary, description, answers, errors, parameters=parameters, **more)}


def _post(
    summary: str, description: str, reply: str, parameters: Sequence[dict[str, Any]], content: dict[str, Any]
) -> dict[str, Any]:
    body = {"required": True, "content": content}
    operation = _operation(summary, description, {200: _json(reply)}, _POST, parameters=parameters, requestBody=body)
    return {"post": operation}


def _operation(
    summary: str, description: str, answers: dict[int, Any], errors: tuple[int, ...], **more: Any
) -> dict[str, Any]:
    described: dict[str, Any] = {"200": "The answer.", "204": "Nothing is known there."}
    responses = {
        str(status): {"description": described[str(status)]} | ({} if content is None else {"content": content})
        for status, content in answers.items()
    }
    for status in sorted((*_ALWAYS, *errors)):
        responses[str(status)] = {"description": _ERRORS[status], "content": _json("ErrorReply")}
        if status == 503:
            after = {"schema": {"type": "integer", "minimum": 1}, "description": "Seconds until another try."}
            responses["503"]["headers"] = {"Retry-After": after}
    stated = {"description": description or None, **more}
    stated = {name: value for name, value in stated.items() if value not in (None, ())}
    return {"summary": summary, "responses": responses, **stated}


def _json(name: str) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}


def _query(name: str, schema: dict[str, Any], description: str) -> dict[str, Any]:
    parameter = {"name": name, "in": "query", "required": False, "schema": schema, "description": description}
    return parameter | ({"style": "form", "explode": False} if schema["type"] == "array" else {})


def _path(name: str) -> dict[str, Any]:
    return {
        "name": name,
        "in": "path",
        "required": True,
        "schema": {"type": "integer", "minimum": 0, "maximum": _MAX_PATH},
    }
