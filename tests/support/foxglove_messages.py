"""Messages of an MCAP file that was written for Foxglove, decoded by the schemas that the file itself contains."""

import json
from pathlib import Path
from typing import Any

from foxglove_schemas_protobuf.CompressedImage_pb2 import CompressedImage
from foxglove_schemas_protobuf.GeoJSON_pb2 import GeoJSON
from foxglove_schemas_protobuf.LocationFix_pb2 import LocationFix
from foxglove_schemas_protobuf.Log_pb2 import Log
from foxglove_schemas_protobuf.PoseInFrame_pb2 import PoseInFrame
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from mcap.reader import make_reader

KINDS: dict[str, Any] = {
    "/geodtr/fix": LocationFix,
    "/geodtr/truth": LocationFix,
    "/geodtr/pose": PoseInFrame,
    "/geodtr/image": CompressedImage,
    "/geodtr/tiles": GeoJSON,
    "/geodtr/log": Log,
}


def read(path: Path) -> dict[str, list[Any]]:
    """All messages by topic, each decoded by the schema that the file itself holds."""
    messages = dict[str, list[Any]]()
    with path.open("rb") as stream:
        for schema, channel, message in make_reader(stream, validate_crcs=True).iter_messages():
            assert schema is not None
            if channel.message_encoding == "json":
                decoded = json.loads(message.data)
            else:
                pool = descriptor_pool.DescriptorPool()
                for file in descriptor_pb2.FileDescriptorSet.FromString(schema.data).file:
                    pool.Add(file)
                kind = message_factory.GetMessageClass(pool.FindMessageTypeByName(schema.name))
                assert schema.name == KINDS[channel.topic].DESCRIPTOR.full_name
                decoded = kind.FromString(message.data)
                if hasattr(decoded, "timestamp"):
                    assert decoded.timestamp.ToNanoseconds() == message.log_time
            messages.setdefault(channel.topic, []).append(decoded)
    return messages
