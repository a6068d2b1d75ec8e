"""The bytes of a link: UDP, TCP or a serial line by the addresses that pymavlink knows, opened again when they break.

Knows addresses and bytes; knows nothing of messages.
"""

import os
import re
import select
import socket
import time

from geodtr.runtime.errors import ConfigError, UserError
from geodtr.runtime.installation import needing

ALLOWED = "udpout:HOST:PORT, udpin:HOST:PORT, tcp:HOST:PORT, serial:DEVICE or serial:DEVICE:BAUD"
BAUD = 921_600
_NETWORK = re.compile(r"(udpout|udpin|tcp):([^:\s]+):(\d{1,5})")
_SERIAL = re.compile(r"serial:(/[^:\s]+)(?::(\d+))?")
_LARGEST = 1 << 16
_AGAIN = 1.0  # seconds between two attempts to open
_CONNECT = 2.0  # seconds that a TCP peer has to answer


class Transport:
    """One address. What is sent while it is broken is lost, as on the air."""

    def __init__(self, address: str) -> None:
        """Raises ConfigError for an address of another form, UserError when it cannot be opened."""
        check_address(address)
        self._address = address
        self._tried = time.monotonic()
        try:
            self._port: _Port | None = _opened(address)
        except OSError as error:
            reason = error.strerror or str(error)
            raise UserError(
                f"{address} cannot be opened ({reason}). Check that the address is right and free, and yours to use."
            ) from None

    def receive(self, seconds: float) -> bytes:
        """What has come, waited for so long at most; empty where nothing has."""
        port = self._port
        if port is None:
            port = self._open_again()
        if port is None:
            time.sleep(seconds)
            return b""
        try:
            waiting = select.poll()  # not select(), which knows no descriptor above 1023
            waiting.register(port, select.POLLIN)
            return port.receive() if waiting.poll(seconds * 1000) else b""
        except (ConnectionRefusedError, BlockingIOError):
            return b""  # nobody listens to what was sent by UDP: they may come back
        except OSError:
            self.close()
            return b""

    def send(self, data: bytes) -> bool:
        """Whether the system took it, which does not mean that somebody hears it."""
        try:
            if self._port is not None:
                self._port.send(data)
                return True
        except (ConnectionRefusedError, BlockingIOError):
            pass
        except OSError:
            self.close()
        return False

    def close(self) -> None:
        if self._port is not None:
            self._port.close()
            self._port = None

    def _open_again(self) -> "_Port | None":
        if time.monotonic() - self._tried < _AGAIN:
            return None
        self._tried = time.monotonic()
        try:
            self._port = _opened(self._address)
        except OSError:
            return None
        return self._port


def check_address(address: str) -> None:
    """Raise ConfigError for an address that no link can have."""
    network = _NETWORK.fullmatch(address)
    if network is None and _SERIAL.fullmatch(address) is None:
        raise ConfigError(f"{address!r} is no address of an autopilot; allowed are {ALLOWED}.")
    if network is not None and not 0 < int(network[3]) < 65536:
        raise ConfigError(f"{address!r} has the port {network[3]}; allowed are 1 to 65535.")
    try:
        (network[2] if network else "").encode("idna")  # as the system is asked for it
    except UnicodeError:
        raise ConfigError(
            f"{address!r} has no host name; allowed are parts of 1 to 63 characters with dots between them."
        ) from None


def _opened(address: str) -> "_Port":
    network, serial = _NETWORK.fullmatch(address), _SERIAL.fullmatch(address)
    if network is None:
        assert serial is not None
        return _Serial(serial[1], int(serial[2] or BAUD))
    host, port = network[2], int(network[3])
    if network[1] == "tcp":
        return _Tcp(host, port)
    return _Udp(host, port, listens=network[1] == "udpin")


class _Socket:
    _socket: socket.socket

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()


class _Udp(_Socket):
    """`listens`: for the peer that sends first; else at an address that is known."""

    def __init__(self, host: str, port: int, *, listens: bool) -> None:
        family, kind, protocol, _, place = socket.getaddrinfo(host, port, socket.AF_INET, socket.SOCK_DGRAM)[0]
        self._socket = socket.socket(family, kind, protocol)
        self._listens, self._peer = listens, None if listens else place
        try:
            self._socket.setblocking(False)
            if listens:
                self._socket.bind(place)
        except OSError:
            self._socket.close()
            raise

    def receive(self) -> bytes:
        data, peer = self._socket.recvfrom(_LARGEST)
        if self._listens:
            self._peer = peer  # the last one: a router that was restarted comes from another port
        return data

    def send(self, data: bytes) -> None:
        if self._peer is not None:
            self._socket.sendto(data, self._peer)


class _Tcp(_Socket):
    def __init__(self, host: str, port: int) -> None:
        self._socket = socket.create_connection((host, port), timeout=_CONNECT)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.setblocking(False)

    def receive(self) -> bytes:
        data = self._socket.recv(_LARGEST)
        if not data:
            raise ConnectionResetError  # the other end has closed
        return data

    def send(self, data: bytes) -> None:
        if self._socket.send(data) < len(data):
            raise ConnectionResetError  # a part of a message would garble the next one


class _Serial:
    def __init__(self, device: str, baud: int) -> None:
        with needing("A serial line needs pyserial", "mavlink"):
            import serial
        try:
            self._port = serial.Serial(device, baud, timeout=0, write_timeout=0)
        except ValueError as error:
            raise OSError(str(error)) from None

    def fileno(self) -> int:
        return int(self._port.fileno())

    def receive(self) -> bytes:
        data = bytes(self._port.read(_LARGEST))
        if not data:
            raise ConnectionResetError  # readable and empty: it was unplugged
        return data

    def send(self, data: bytes) -> None:
        # pyserial's own write would try a full buffer again until there is room.
        if os.write(self.fileno(), data) < len(data):
            raise ConnectionResetError  # a part of a message would garble the next one

    def close(self) -> None:
        self._port.close()


_Port = _Udp | _Tcp | _Serial
"""An open socket or device that never waits."""
