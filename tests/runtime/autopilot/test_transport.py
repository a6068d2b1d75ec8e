"""UDP, TCP and serial lines: spoken, broken, dialled again, and addresses of another form refused."""

import os
import pty
import resource
import select
import socket
from threading import Thread

import pytest
from mavlink_peer import Peer, free_port

from geodtr import UserError
from geodtr.runtime.autopilot import transport as transports
from geodtr.runtime.autopilot.options import LinkOptions
from geodtr.runtime.autopilot.transport import Transport
from geodtr.runtime.errors import ConfigError


def test_a_link_works_with_many_files_open() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 1100:
        pytest.skip("more than 1024 files cannot be open here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 1100), hard))
    held = [os.open(os.devnull, os.O_RDONLY) for _ in range(1030)]
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
            peer.bind(("127.0.0.1", 0))
            transport = Transport(f"udpout:127.0.0.1:{peer.getsockname()[1]}")
            transport.send(b"there?")
            peer.sendto(b"here", peer.recvfrom(16)[1])
            assert transport.receive(5) == b"here"
            assert transport.receive(0.01) == b""
            transport.close()
    finally:
        for each in held:
            os.close(each)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize(
    "address",
    ["", "udpout:127.0.0.1", "udp:127.0.0.1:14550", "udpout:127.0.0.1:0", "tcp:a:99999", "/dev/ttyACM0", "/bin/sh.elf"],
)
def test_an_address_of_another_form_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match="allowed are"):
        LinkOptions(address)


@pytest.mark.parametrize("host", ["a..b", "a" * 64, "\udcff"])
def test_a_host_name_that_cannot_be_asked_for_is_refused(host: str) -> None:
    with pytest.raises(ConfigError, match="host name"):
        LinkOptions(f"udpout:{host}:14550")


@pytest.mark.parametrize("address", ["tcp:127.0.0.1:1", "serial:/dev/no-such-line", "udpout:no-such-host.invalid:1"])
def test_an_address_that_cannot_be_opened_is_named(address: str) -> None:
    with pytest.raises(UserError, match="cannot be opened"):
        Transport(address)


def test_a_port_that_another_program_listens_at_is_refused() -> None:
    with Peer() as peer, pytest.raises(UserError, match="in use"):
        Transport(f"udpin:127.0.0.1:{peer.port}")


def test_tcp_is_spoken_and_dialled_again() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        transport = Transport(f"tcp:127.0.0.1:{server.getsockname()[1]}")
        try:
            first, _ = server.accept()
            assert transport.send(b"one")
            assert first.recv(10) == b"one"
            first.sendall(b"two")
            assert transport.receive(5) == b"two"
            first.close()
            server.settimeout(0.1)
            second = None
            for _ in range(100):
                transport.receive(0.05)
                try:
                    second, _ = server.accept()
                    break
                except TimeoutError:
                    continue
            assert second is not None
            assert transport.send(b"three")
            assert second.recv(10) == b"three"
            second.close()
        finally:
            transport.close()


def test_a_serial_line_is_spoken() -> None:
    ours, theirs = pty.openpty()
    transport = Transport(f"serial:{os.ttyname(theirs)}:57600")
    try:
        assert transport.send(b"one")
        assert os.read(ours, 10) == b"one"
        os.write(ours, b"two")
        assert transport.receive(5) == b"two"
        os.close(ours)
        assert transport.receive(1) == b""  # it was unplugged
        assert not transport.send(b"three")
    finally:
        transport.close()
        os.close(theirs)


def test_a_serial_line_that_takes_no_bytes_drops_messages_and_holds_nothing_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(transports, "_AGAIN", 0.0)
    ours, theirs = pty.openpty()
    transport = Transport(f"serial:{os.ttyname(theirs)}:57600")
    message = bytes(range(100))
    taken = list[bool]()

    def send(count: int) -> None:
        taken.extend(transport.send(message) for _ in range(count))

    def send_in_time(count: int) -> None:
        taken.clear()
        thread = Thread(target=send, args=(count,), daemon=True)
        thread.start()
        thread.join(10)
        assert not thread.is_alive()

    def read_all() -> bytes:
        data = b""
        while select.select([ours], [], [], 0.1)[0]:
            data += os.read(ours, 1 << 16)
        return data

    try:
        send_in_time(1000)
        whole = taken.index(False)
        assert whole > 0
        for _ in range(50):  # the kernel moves bytes on a while later, which makes room
            transport.receive(0.1)
            send_in_time(10)
            if not any(taken):
                break
        assert not any(taken), "nobody reads"
        assert read_all().startswith(message * whole)
        transport.receive(0.1)
        send_in_time(10)
        assert taken == [True] * 10
        assert read_all() == message * 10
    finally:
        os.close(ours)
        os.close(theirs)
        transport.close()


def test_udpin_answers_the_last_that_spoke() -> None:
    port = free_port()
    transport = Transport(f"udpin:127.0.0.1:{port}")
    try:
        assert transport.send(b"to nobody yet")
        for _ in range(2):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as router:
                router.settimeout(5)
                router.sendto(b"here", ("127.0.0.1", port))
                assert transport.receive(5) == b"here"
                transport.send(b"there")
                assert router.recv(10) == b"there"
    finally:
        transport.close()
