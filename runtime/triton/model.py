"""The Python model of a repository: images as files in, positions and tiles out.

Triton's Python backend makes one object and calls it, with requests that it has batched. Its module
triton_python_backend_utils exists in that backend alone, and is imported inside the calls. Source: the README of
triton-inference-server/python_backend.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from geodtr.runtime.errors import ConfigError, ImageError
from geodtr.runtime.files.documents import encode_json
from geodtr.runtime.geodesy import Near
from geodtr.runtime.images.decode import decode_bytes
from geodtr.runtime.images.frames import Frame
from geodtr.runtime.localization.localizer import Localizer
from geodtr.runtime.localization.result import Localisation
from geodtr.runtime.localization.waypoint import record
from geodtr.runtime.triton.repository import BUNDLE, GALLERY

MAX_BYTES = 64 << 20
"""Of an image's file."""


class TritonPythonModel:
    """A localizer behind Triton's interface."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open the bundle and the gallery that are beside the model's file."""
        config = json.loads(args["model_config"])["parameters"]
        folder = Path(args["model_repository"]) / args["model_version"]
        place = config["gallery"]["string_value"]
        self._top = int(config["top"]["string_value"])
        self._localizer = Localizer.open(
            folder / BUNDLE,
            folder / GALLERY if place == GALLERY else place,
            headings=int(config["headings"]["string_value"]),
        )

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """A response for each request: all of its images, or the reason why one of them has no answer."""
        import triton_python_backend_utils as backend

        frames = [list(_frames(request, number, backend)) for number, request in enumerate(requests)]
        errors = dict[str, str]()

        def on_error(frame: Frame, error: ImageError) -> None:
            errors[frame.name] = str(error)

        every = (frame for of_request in frames for frame in of_request)
        answers = {each.image: each for each in self._localizer.locate_frames(every, self._top, on_error=on_error)}
        responses = list[Any]()
        for of_request in frames:
            bad = next((errors[frame.name] for frame in of_request if frame.name in errors), None)
            if bad is not None:
                responses.append(backend.InferenceResponse(output_tensors=[], error=backend.TritonError(bad)))
                continue
            outputs = self._outputs([answers[frame.name] for frame in of_request])
            tensors = [backend.Tensor(name, values) for name, values in outputs.items()]
            responses.append(backend.InferenceResponse(output_tensors=tensors))
        return responses

    def finalize(self) -> None:
        """Close the gallery."""
        self._localizer.close()

    def _outputs(self, answers: Sequence[Localisation]) -> dict[str, np.ndarray[Any, Any]]:
        """Arrays of all images [B, ...]: NaN for what is not known, an empty text for a tile that there is not."""
        count = len(answers)
        position, within = np.full((count, 2), np.nan), np.full((count, 2), np.nan, np.float32)
        tile, score = np.full((count, self._top), b"", object), np.full((count, self._top), np.nan, np.float32)
        text = np.empty((count, 1), object)
        for row, answer in enumerate(answers):
            waypoint = answer.waypoint
            text[row, 0] = encode_json({**record(waypoint), "image": None})
            if waypoint.lat is not None:
                position[row] = waypoint.lat, waypoint.lon
            radii = [waypoint.within_68_m, waypoint.within_95_m]
            within[row] = [np.nan if radius is None else radius for radius in radii]
            for rank, candidate in enumerate(answer.candidates):
                tile[row, rank] = candidate.place.id.encode("utf-8", "replace")
                score[row, rank] = candidate.score
        return {"ANSWER": text, "POSITION": position, "WITHIN": within, "TILE": tile, "SCORE": score}


def _frames(request: Any, number: int, backend: Any) -> Iterator[Frame]:
    """A request's images; one that cannot be read, or has an impossible prior, is an ImageError in its place."""
    images = backend.get_input_tensor_by_name(request, "IMAGE").as_numpy().reshape(-1)
    given = backend.get_input_tensor_by_name(request, "NEAR")
    priors = [None] * len(images) if given is None else given.as_numpy().reshape(-1, 3).tolist()
    for index, (content, prior) in enumerate(zip(images, priors, strict=True)):
        name, called = f"{number}/{index}", f"image {index} of the request"
        try:
            if len(content) > MAX_BYTES:
                raise ImageError(f"{called} has {len(content):,} bytes; at most {MAX_BYTES:,} are read.")
            near = None if prior is None or np.isnan(prior).any() else Near(*prior)
            yield Frame(name, decode_bytes(bytes(content), called).pixels, near=near)
        except (ImageError, ConfigError) as error:
            yield Frame(name, ImageError(f"{called}: {error}" if isinstance(error, ConfigError) else str(error)))
