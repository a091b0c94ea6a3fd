"""Who has no key, the wrong key or a damaged one gets silence or a clear error, never a job, and disturbs nobody."""

from __future__ import annotations

import fcntl
import os
import random
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from cexec.protocol.base import sodium
from cexec.protocol.base.certificate import ROLE_CLIENT, ROLE_WORKER, Certificate, Identity
from cexec.protocol.base.keys import ClientKey, Key, OwnerKey, WorkerKey, encode_key
from cexec.protocol.base.limits import MAXIMUM_UNAUTHENTICATED, UDP_PORT
from tests.conftest import StartService
from tests.environment import LOOPBACK_GROUP, command, local_environment
from tests.service import Application, Service
from tests.waiting import PATIENCE, wait_until

# Of the waiting client.  It is below the ports that the kernel gives to connections: a connection to a free port among
# those can get the same port at its own end, and is then connected to itself.
PORT = 21_301
ABOVE_MAXFD = 33  # the lowest descriptor that CEXEC_FD_FOR_ERRORS may be
SOON = {"CEXEC_TIMEOUT_ACCEPT": "1"}


class Waiting:
    """A client without a worker: its port is open to everybody."""

    def __init__(self, application: Application) -> None:
        reading, writing = os.pipe()
        self._lines = os.fdopen(reading)
        errors = fcntl.fcntl(writing, fcntl.F_DUPFD, ABOVE_MAXFD)
        settings = {
            "CEXEC_LISTEN_PORTS": str(PORT),
            "CEXEC_TIMEOUT_ACCEPT": "0",
            "CEXEC_FD_FOR_ERRORS": str(errors),
        }
        argv, environment = application.client(environment=settings)
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        self.process = subprocess.Popen(argv, env=environment, pass_fds=[errors], **pipes)  # type: ignore[call-overload]
        os.close(writing)
        os.close(errors)
        self.errors = ""

    def connect(self) -> socket.socket:
        """A stranger's connection."""
        made: list[socket.socket] = []

        def connects() -> bool:
            try:
                made.append(socket.create_connection(("127.0.0.1", PORT), timeout=PATIENCE))
            except ConnectionRefusedError:
                assert self.process.poll() is None, "the client has ended"
            return bool(made)

        wait_until(connects)
        return made[0]

    def close(self) -> None:
        self.process.kill()
        with self.process:  # closes the pipes
            pass
        self._lines.close()

    def finish(self) -> tuple[int, bytes, bytes]:
        """Gives the job its input; its status and what it wrote."""
        output, errors = self.process.communicate(b"honest", timeout=30)
        self.errors = self._lines.read()
        return self.process.returncode, output, errors


@pytest.fixture
def waiting(application: Application) -> Iterator[Waiting]:
    client = Waiting(application)
    yield client
    client.close()


# At the client's port


@pytest.mark.parametrize("count", [10, MAXIMUM_UNAUTHENTICATED + 20, 300])
def test_silent_strangers_do_not_keep_a_worker_out(count: int, waiting: Waiting, service: StartService) -> None:
    with ExitStack() as stack:
        strangers = [stack.enter_context(waiting.connect()) for _ in range(count)]
        service("cat")
        assert waiting.finish() == (0, b"honest", b"")
        for stranger in strangers:
            assert all_received(stranger) == b""
    assert set(waiting.errors.splitlines()) <= {"127.0.0.1 could not read signature"}


def all_received(stranger: socket.socket) -> bytes:
    data = b""
    try:
        while chunk := stranger.recv(4096):
            data += chunk
    except ConnectionError:
        pass  # what it had sent was not read
    return data


FIRST_WORDS = {
    "HTTP": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "TLS": bytes.fromhex("16030100c8010000c40303") + bytes(200),
    "SSH": b"SSH-2.0-OpenSSH_9.2\r\n",
    "nothing and the end": b"",
    "noise": random.Random(1).randbytes(100_000),
    "zeros": bytes(100_000),
    "huge length": b"\xff" * 100_000,
}


@pytest.mark.parametrize("words", FIRST_WORDS.values(), ids=FIRST_WORDS)
def test_who_does_not_speak_the_protocol_hears_nothing(words: bytes, waiting: Waiting, service: StartService) -> None:
    with waiting.connect() as stranger:
        try:
            stranger.sendall(words)
            stranger.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # thrown out already
        assert all_received(stranger) == b""
    service("cat")
    assert waiting.finish() == (0, b"honest", b"")
    complaints = {
        "could not read signature",
        "signature didn't verify",
        "violated protocol",
        "disconnected unexpectedly",
    }
    assert waiting.errors in {f"127.0.0.1 {text}\n" for text in complaints}


def test_a_stranger_who_sends_a_byte_now_and_then_is_thrown_out(waiting: Waiting, service: StartService) -> None:
    began = time.monotonic()
    with waiting.connect() as stranger:
        stranger.settimeout(0.25)
        while True:
            try:
                stranger.send(b"x")
                assert stranger.recv(1) == b""
                break
            except TimeoutError:
                assert time.monotonic() - began < PATIENCE  # CONNECT_DEADLINE, were the machine idle
            except ConnectionError:
                break
    service("cat")
    assert waiting.finish() == (0, b"honest", b"")
    assert waiting.errors == "127.0.0.1 violated protocol\n"


def test_a_port_scan_changes_nothing(waiting: Waiting, service: StartService) -> None:
    for number in range(200):
        with waiting.connect() as stranger:
            if number % 2:  # ends by a reset
                stranger.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    service("cat")
    assert waiting.finish() == (0, b"honest", b"")


def refuses() -> bool:
    """Whether nobody listens at the client's port."""
    try:
        socket.create_connection(("127.0.0.1", PORT), timeout=PATIENCE).close()
    except ConnectionRefusedError:
        return True
    return False


def test_after_the_job_has_a_worker_nobody_can_connect(waiting: Waiting, service: StartService) -> None:
    waiting.connect().close()
    worker = service("cat")
    worker.wait_for(" started ")
    wait_until(refuses)  # a busy client may close its port only now
    assert waiting.finish() == (0, b"honest", b"")


# At the worker's port


def test_bogus_datagrams_are_dropped_in_silence(application: Application, service: StartService) -> None:
    worker = service("cat")
    chance = random.Random(2)
    with datagrams() as send:
        for size in range(0, 1400, 7):
            send(chance.randbytes(size))
        for kind in range(256):
            send(b"cexec" + bytes([1, kind]) + chance.randbytes(200))
    assert application.run(input=b"honest").stdout == b"honest"
    assert {line.split()[1] for line in worker.lines[1:]} <= {"accepted", "started", "finished"}


@contextmanager
def datagrams() -> Iterator[Callable[[bytes], None]]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as speaker:
        speaker.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)

        def send(data: bytes) -> None:
            speaker.sendto(data, (LOOPBACK_GROUP, UDP_PORT))

        yield send


# Wrong keys


def write_key(path: Path, key: Key) -> Path:
    path.write_text(encode_key(key))
    path.chmod(0o600)
    return path


def only_another_key(worker: Service) -> None:
    """Its log tells once that somebody has announced a job with another key, and nothing else."""
    assert [line.split()[1:3] for line in worker.lines[1:]] == [["another-key", "client=127.0.0.1"]]


def test_another_applications_client_gets_no_job_and_no_word(
    application: Application, service: StartService, tmp_path: Path
) -> None:
    worker = service("cat")
    (tmp_path / "other").mkdir()
    stranger = Application(tmp_path / "other")
    ended = stranger.run(environment=SOON)
    assert (ended.returncode, ended.stdout) == (111, b"")
    assert f"no worker of {stranger.fingerprint} answered in 1 s" in ended.stderr.decode()
    only_another_key(worker)


def test_another_applications_worker_gets_no_job(
    application: Application, service: StartService, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    stranger = service("echo", "wrong", application=Application(tmp_path / "other"))
    ended = application.run(environment=SOON)
    assert (ended.returncode, ended.stdout) == (111, b"")
    service("echo", "right")
    assert [application.run().stdout for _ in range(5)] == [b"right\n"] * 5
    only_another_key(stranger)


OWNER, THIEF = OwnerKey(b"\x01" * 32), OwnerKey(b"\x02" * 32)


def certificate(owner: OwnerKey, role: str, **dates: int) -> Identity:
    """Signed by `owner`."""
    seed = sodium.random_bytes(32)
    public = sodium.signing_public_key(seed)
    return Identity(Certificate.issue(owner.authority_seed, role, "guest", 7, public, **dates), seed)


def client_key(identity: Identity) -> ClientKey:
    """A key of OWNER's application with this identity."""
    plain = OWNER.client_key()
    return ClientKey(plain.worker_public, plain.psk, plain.authority_public, identity)


def worker_key(identity: Identity) -> WorkerKey:
    return WorkerKey(OWNER.worker_secret, OWNER.psk, OWNER.authority_public, identity)


class KeyPair(Application):
    """Key files that no ckeygen would make."""

    def __init__(self, directory: Path, secret: Key, public: Key) -> None:
        self.secret = write_key(directory / "guest", secret)
        self.public = write_key(directory / "guest.pub", public)


def test_a_client_whose_certificate_the_owner_did_not_sign_gets_no_job(service: StartService, tmp_path: Path) -> None:
    pair = KeyPair(tmp_path, OWNER, client_key(certificate(THIEF, ROLE_CLIENT)))
    worker = service("cat", application=pair)
    assert pair.run(environment=SOON).returncode == 111
    assert worker.lines[1:] == []


def test_a_worker_whose_certificate_the_owner_did_not_sign_gets_no_job(service: StartService, tmp_path: Path) -> None:
    pair = KeyPair(tmp_path, worker_key(certificate(THIEF, ROLE_WORKER)), OWNER.client_key())
    worker = service("cat", application=pair)
    ended = pair.run(environment=SOON, input=b"secret")
    assert (ended.returncode, ended.stdout) == (111, b"")
    assert not any(" accepted " in line for line in worker.lines)


# Certificates that only the other side's clock finds invalid

CLOCK = """
import runpy, sys, time
time.time = lambda: {now}
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def with_clock(now: int, argv: list[str]) -> list[str]:
    """The command on a machine whose clock stands still at `now`."""
    return [argv[0], "-c", CLOCK.format(now=now), *argv[1:]]


def test_an_expired_client_is_told_by_the_worker_and_the_worker_says_so_too(
    service: StartService, tmp_path: Path
) -> None:
    pair = KeyPair(tmp_path, OWNER, client_key(certificate(OWNER, ROLE_CLIENT, not_after=1_600_000_000)))
    worker = service("cat", options=["--name", "w1"], application=pair)
    argv, environment = pair.client(environment={"CEXEC_TIMEOUT_ACCEPT": "4"})
    ended = subprocess.run(with_clock(1_500_000_000, argv), env=environment, input=b"", capture_output=True, timeout=30)
    today = time.strftime("%Y-%m-%d", time.gmtime())
    reason = f"certificate of guest expired on 2020-09-13 and this machine's clock says {today}"
    assert ended.returncode == 111
    assert f"; worker w1 refuses: {reason}\n" in ended.stderr.decode()
    assert reason in worker.wait_for(" refused ")


@pytest.fixture
def expired_worker(tmp_path: Path) -> KeyPair:
    identity = certificate(OWNER, ROLE_WORKER, not_after=1_600_000_000)
    return KeyPair(tmp_path, worker_key(identity), OWNER.client_key())


def test_a_worker_says_at_its_start_that_its_certificate_has_expired(expired_worker: KeyPair) -> None:
    argv = command("cservice", expired_worker.secret, "cat")
    ended = subprocess.run(argv, env=local_environment(), capture_output=True, text=True, timeout=20)
    assert ended.returncode == 111
    assert ended.stderr.startswith(
        f"cservice: {expired_worker.secret}: certificate of guest expired on 2020-09-13 and this machine's clock says "
    )


def test_a_worker_that_has_expired_meanwhile_gets_no_job_and_the_client_says_why(
    expired_worker: KeyPair, service: StartService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.service.command", lambda *words: with_clock(1_500_000_000, command(*words)))
    service("cat", application=expired_worker)
    monkeypatch.undo()
    ended = expired_worker.run(environment={"CEXEC_TIMEOUT_ACCEPT": "4"}, input=b"secret")
    assert (ended.returncode, ended.stdout) == (111, b"")
    assert "; worker guest was not taken: certificate of guest expired on 2020-09-13" in ended.stderr.decode()
