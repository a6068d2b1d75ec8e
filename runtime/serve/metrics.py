"""Figures for Prometheus."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from geodtr.runtime.serve.replies import Stages

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """One set of figures, of one server."""

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.requests = Counter("geodtr_requests", "Answered requests.", ("path", "status"), registry=registry)
        self.images = Counter("geodtr_images", "Images by what became of them.", ("outcome",), registry=registry)
        self.batch = Histogram(
            "geodtr_batch_images", "Images embedded together.", buckets=(1, 2, 4, 8, 16, 32, 64), registry=registry
        )
        stage = Histogram(
            "geodtr_stage_seconds", "Time of an image in each stage.", ("stage",), buckets=_SECONDS, registry=registry
        )
        self._stages = {name: stage.labels(name) for name in Stages.__struct_fields__}
        self.accepted = Gauge("geodtr_accepted_images", "Accepted and not yet answered.", registry=registry)
        self.held = Gauge("geodtr_held_bytes", "Bytes of images, received and not yet decoded.", registry=registry)
        self.frames = Counter("geodtr_frames", "Frames of the live view, by state.", ("state",), registry=registry)
        self.viewers = Gauge("geodtr_viewers", "Clients that watch the live view.", registry=registry)
        self.gallery = Gauge("geodtr_gallery_number", "Rises with each gallery.", registry=registry)
        self.references = Gauge("geodtr_gallery_references", "Tiles of the gallery in use.", registry=registry)

    def observe(self, stages: Stages) -> None:
        """Count an answer's stages."""
        for name, stage in self._stages.items():
            stage.observe(getattr(stages, name) / 1000)

    def text(self) -> bytes:
        """All of it in Prometheus's text format."""
        return generate_latest(self._registry)
