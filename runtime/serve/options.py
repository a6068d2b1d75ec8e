"""What a server is asked to be: where it listens, who may ask, and how much at once."""

import errno
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from geodtr.runtime.errors import ConfigError
from geodtr.runtime.files import readable
from geodtr.runtime.files.documents import read_document

ROOM = 512_000_000
"""Bytes of images that are received and not yet decoded, of all clients together."""
SHORTEST_TOKEN = 16
_LONGEST_TOKEN = 512


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """Raises ConfigError naming a value that is not allowed.

    Attributes
    ----------
    host, port
        Where it listens. Beyond this machine only with a `token`. Port 0: any that is free.
    token
        What a client has to show; None lets everybody on this machine ask.
    batch_size
        Most images that are embedded together.
    wait_ms
        Longest time that an image waits for others that are being decoded, milliseconds.
    queue
        Most images that are accepted and not yet answered.
    max_megabytes, max_megapixels
        Of one image. A batch has up to four times as many bytes, and at most ROOM.
    """

    host: str = "127.0.0.1"
    port: int = 8765
    token: str | None = None
    batch_size: int = 32
    wait_ms: float = 10.0
    queue: int = 256
    max_megabytes: int = 32
    max_megapixels: int = 50

    def __post_init__(self) -> None:
        if not is_loopback(self.host) and self.token is None:
            raise ConfigError(
                f"{self.host} can be reached from other machines, so a token is needed: --token-file FILE, one line of "
                f"at least {SHORTEST_TOKEN} characters. To make one: openssl rand -hex 24 > FILE"
            )

    @property
    def image_bytes(self) -> int:
        return self.max_megabytes * 1_000_000

    @property
    def batch_bytes(self) -> int:
        return min(4 * self.image_bytes, ROOM)

    @property
    def pixels(self) -> int:
        return self.max_megapixels * 1_000_000


def is_loopback(host: str) -> bool:
    """Whether only programs on this machine reach this address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@readable(ConfigError)
def read_token(path: Path) -> str:
    """The token in a file. Raises ConfigError when it is none."""
    try:
        content = read_document(path, _LONGEST_TOKEN + len("\r\n"))
    except OSError as error:
        if error.errno != errno.EFBIG:
            raise
        content = b""  # as wrong as no token
    token = content.decode("ascii", "replace").strip()
    fits = SHORTEST_TOKEN <= len(token) <= _LONGEST_TOKEN
    if not fits or not token.isascii() or not token.isprintable() or " " in token:
        raise ConfigError(
            f"{path} holds no token: needed is one line of {SHORTEST_TOKEN} to {_LONGEST_TOKEN} ASCII characters, "
            f"without spaces. To make one: openssl rand -hex 24 > {path}"
        )
    return token
