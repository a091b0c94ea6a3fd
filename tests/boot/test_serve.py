"""What a worker of a run is, and the key that it gets."""

from __future__ import annotations

import base64
import os
import time
from pathlib import Path

import pytest

from cexec.authority.issue import revoke
from cexec.authority.make import KeyMakingError
from cexec.authority.record import read_record
from cexec.boot.hosts import Host
from cexec.boot.serve import Application, Service, directory_name, is_of, is_same
from cexec.protocol.base.keys import OwnerKey, WorkerKey, decode_key
from tests.service import Application as Keys

HOST = Host("node1", name="node1")


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return Keys(tmp_path)


@pytest.fixture
def service(keys: Keys) -> Service:
    return Service(Application.find(os.fspath(keys.secret)), ["--nice", "5"], ["cat", "-n"])


def test_a_worker_listens_where_the_clients_announce(service: Service) -> None:
    environ = {"CEXEC_GROUP": "239.1.1.1", "CEXEC_UDP_PORT": "", "CEXEC_SPOOL": "/x", "HOME": "/root"}
    wanted = service.wanted(Host("node1", slots=3, name="node1"), "detached", environ)
    assert wanted["environment"] == {"CEXEC_GROUP": "239.1.1.1"}
    assert wanted["options"] == ["--nice", "5", "-j", "3"] and wanted["program"] == ["cat", "-n"]


def test_a_host_gets_a_key_of_its_own_and_never_the_owners(service: Service, keys: Keys, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    request = service.start_request(HOST, service.wanted(HOST, "detached"), {}, "1-abc", scratch)
    key = decode_key(base64.b64decode(request["key"]))
    assert isinstance(key, WorkerKey) and not isinstance(key, OwnerKey)
    assert key.identity.certificate.name == "node1" and key.identity.certificate.serial == request["record"]["serial"]
    assert [one.name for one in read_record(os.fspath(keys.secret)).issued] == ["node1"]
    assert list(scratch.iterdir()) == []
    owner = Path(keys.secret).read_bytes()
    assert not [value for value in map(str, request.values()) if base64.b64encode(owner).decode() in value]
    again = service.start_request(HOST, service.wanted(HOST, "detached"), request["record"], "1-abc", scratch)
    assert again["key"] is None and again["record"] == request["record"]


@pytest.mark.parametrize(
    "changes", [{"not_after": time.time() + 3600}, {"fingerprint": "0000-0000"}, {"app": "other"}, {"serial": 0}]
)
def test_a_key_that_is_no_longer_good_is_replaced(changes: dict[str, object], service: Service, tmp_path: Path) -> None:
    wanted = service.wanted(HOST, "detached")
    record = service.start_request(HOST, wanted, {}, "1-abc", tmp_path)["record"]
    assert service.start_request(HOST, wanted, {**record, **changes}, "1-abc", tmp_path)["key"] is not None


def test_a_key_can_end(keys: Keys, tmp_path: Path) -> None:
    service = Service(Application.find(os.fspath(keys.secret)), [], ["cat"], days=30)
    record = service.start_request(HOST, service.wanted(HOST, "detached"), {}, "1-abc", tmp_path)["record"]
    assert abs(record["not_after"] - time.time() - 30 * 86_400) < 100


def test_the_list_of_revoked_certificates_goes_along(service: Service, keys: Keys, tmp_path: Path) -> None:
    wanted = service.wanted(HOST, "detached")
    assert service.start_request(HOST, wanted, {}, "1-abc", tmp_path)["revoked"] is None
    revoke(os.fspath(keys.secret), "node1")
    request = service.start_request(HOST, wanted, {}, "1-abc", tmp_path)
    assert base64.b64decode(request["revoked"]) == Path(f"{keys.secret}.revoked").read_bytes()


def test_a_record_is_compared_by_what_the_worker_does(service: Service) -> None:
    wanted = service.wanted(HOST, "detached", {})
    assert is_same({**wanted, "serial": 7, "release": "1"}, wanted)
    for name, value in {
        "program": ["tac"],
        "options": [],
        "packages": ["numpy"],
        "how": "unit",
        "environment": {"CEXEC_GROUP": "x"},
    }.items():
        assert not is_same({**wanted, name: value}, wanted)
    assert not is_same({}, wanted)


def test_only_the_private_key_can_issue(keys: Keys) -> None:
    with pytest.raises(KeyMakingError, match="cboot issues a key for each worker with the private key"):
        Application.find(os.fspath(keys.public))


def test_a_directory_belongs_to_one_host_only() -> None:
    lasting = directory_name("0fe5-08ec", HOST, ephemeral=False)
    passing = directory_name("0fe5-08ec", HOST, ephemeral=True)
    assert lasting != passing and is_of(lasting, "node1") and is_of(passing, "node1")
    assert not is_of(lasting, "e1") and not is_of(lasting, "1-node1") and not is_of("lost+found", "found")
