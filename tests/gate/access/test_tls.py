"""TLS with the certificates of `cgate tls init`, over real connections."""

from __future__ import annotations

import errno
import os
import ssl
import stat
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from cexec.errors import CexecError, LocalError, UsageError
from cexec.gate.access.tls import FILES, make_materials, names_of, server_context
from tests.gate.access.door import Door, open_door, problem


@pytest.fixture(scope="module")
def materials(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("tls") / "new"
    make_materials(str(directory), ["gate.example.org", "10.0.0.5"])
    return directory


@pytest.fixture(scope="module")
def door(materials: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    paths = [str(materials / name) for name in ("server.pem", "server.key", "ca.pem")]
    with open_door(tmp_path_factory.mktemp("door"), context=server_context(*paths)) as door:
        yield door


def trusting(materials: Path, *, certificate: str | None = "client") -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(materials / "ca.pem"))
    if certificate is not None:
        context.load_cert_chain(materials / f"{certificate}.pem", materials / f"{certificate}.key")
    return context


def test_the_files_are_their_owners(materials: Path) -> None:
    assert sorted(os.listdir(materials)) == sorted(FILES)
    assert stat.S_IMODE(os.stat(materials).st_mode) == 0o700
    for name in FILES:
        assert stat.S_IMODE(os.stat(materials / name).st_mode) == 0o600, name
    assert names_of(str(materials / "server.pem")) == [
        "gate.example.org", "localhost", "10.0.0.5", "127.0.0.1", "::1",
    ]  # fmt: skip


@pytest.mark.parametrize("kind", ["file", "link", "dangling", "directory"])
def test_nothing_is_replaced_and_nothing_left(tmp_path: Path, kind: str) -> None:
    there = tmp_path / "server.key"
    if kind == "file":
        there.write_text("mine")
    elif kind == "directory":
        there.mkdir()
    else:
        there.symlink_to(tmp_path / "target")
        if kind == "link":
            (tmp_path / "target").write_text("mine")
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(LocalError, match=r"server\.key exists already, and nothing is replaced"):
        make_materials(str(tmp_path), [])
    assert sorted(os.listdir(tmp_path)) == before
    assert kind != "file" or there.read_text() == "mine"


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []

    def fail_at_the_fourth(fd: int) -> None:
        synced.append(fd)
        if len(synced) == 4:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fail_at_the_fourth)
    with pytest.raises(LocalError, match="no space left on device"):
        make_materials(str(tmp_path), [])
    assert len(synced) == 4 and os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["a b", "", "a..b", "-\x00", "http://x", "*"])
def test_odd_names_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="neither the name of a host nor a numeric address"):
        make_materials(str(tmp_path / "new"), [name])
    assert not (tmp_path / "new").exists()


def test_certificate_and_token_are_needed_together(door: Door, materials: Path) -> None:
    token = door.token()
    with door.client(token, verify=trusting(materials)) as client:
        assert client.get("/v1/jobs").json()[0] == "ci"
        # a rule for all ports of this name, where others may serve without TLS
        assert "strict-transport-security" not in client.get("/v1/jobs").headers
    with door.client(verify=trusting(materials)) as client:
        assert problem(client.get("/v1/jobs"))[0] == 401
    with (
        door.client(token, verify=trusting(materials, certificate=None)) as client,
        pytest.raises(httpx.TransportError),
    ):
        client.get("/v1/jobs")


def test_a_certificate_of_another_authority_is_refused(door: Door, materials: Path, tmp_path: Path) -> None:
    make_materials(str(tmp_path), [])
    context = ssl.create_default_context(cafile=str(materials / "ca.pem"))
    context.load_cert_chain(tmp_path / "client.pem", tmp_path / "client.key")
    with door.client(door.token("foreign"), verify=context) as client, pytest.raises(httpx.TransportError):
        client.get("/v1/jobs")


def test_the_server_certificate_is_no_client_certificate(door: Door, materials: Path) -> None:
    with door.client(verify=trusting(materials, certificate="server")) as client, pytest.raises(httpx.TransportError):
        client.get("/healthz")


def test_a_client_checks_the_name(door: Door, materials: Path) -> None:
    with httpx.Client(verify=trusting(materials), trust_env=False) as client:
        assert client.get(f"https://localhost:{door.port}/healthz").status_code == 200
        with pytest.raises(httpx.TransportError):
            client.get(f"https://127.0.0.2:{door.port}/healthz")


def test_the_cookie_over_tls_is_secure(door: Door, materials: Path) -> None:
    code = door.login_url().partition("#")[2]
    with door.client(verify=trusting(materials), headers={"Origin": door.base}) as client:
        answer = client.post("/login", data={"code": code})
        assert answer.headers["set-cookie"].startswith("__Host-cgate=") and "; Secure" in answer.headers["set-cookie"]
        assert client.get("/v1/jobs").status_code == 200


def test_old_versions_of_tls_are_refused(door: Door, materials: Path) -> None:
    context = trusting(materials)
    with pytest.warns(DeprecationWarning):
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    with door.client(verify=context) as client, pytest.raises(httpx.TransportError):
        client.get("/healthz")


def test_plain_http_gets_nothing(door: Door) -> None:
    assert b"HTTP/1.1 200" not in door.raw(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")


def test_what_is_wrong_with_the_files_is_told(materials: Path, tmp_path: Path) -> None:
    make_materials(str(tmp_path / "other"), [])
    make_materials(str(tmp_path / "old"), [], datetime.now(UTC) - timedelta(days=4000))
    certificate, key, ca = (str(materials / name) for name in ("server.pem", "server.key", "ca.pem"))
    other, old = str(tmp_path / "other" / "server.key"), tmp_path / "old"
    open_key = tmp_path / "open.key"
    open_key.write_bytes(Path(key).read_bytes())
    open_key.chmod(0o644)
    text = tmp_path / "text"
    text.write_text("hello")
    text.chmod(0o600)
    cases = [
        ((certificate, other, None), "are no certificate and its key"),
        ((key, certificate, None), "is no certificate in PEM"),
        ((certificate, str(text), None), "are no certificate and its key"),
        ((certificate, key, str(text)), "is no certificate of an authority"),
        ((certificate, key, str(tmp_path / "absent")), "cannot read .*absent: no such file"),
        ((certificate, str(open_key), None), "every user can read the key .*: chmod go= "),
        ((str(old / "server.pem"), str(old / "server.key"), None), "has ended on "),
    ]
    for arguments, words in cases:
        with pytest.raises(CexecError, match=words):
            server_context(*arguments)
    server_context(certificate, key, ca)
