"""ckeygen(1): keys of single clients and workers, the record of them, and their revocation."""

from __future__ import annotations

import os
import re
import subprocess
import time
from pathlib import Path

import pytest

from cexec.authority.record import read_record
from cexec.commands import ckeygen
from cexec.protocol.base.certificate import ROLE_CLIENT, ROLE_WORKER
from cexec.protocol.base.keys import ClientKey, OwnerKey, WorkerKey
from cexec.protocol.base.revocation import RevocationList, decode_list
from cexec.system.storage.keyfile import read_key
from tests.commands.keygen import Ended, Run, contents, fails
from tests.environment import command

DAY = 86_400


@pytest.fixture(autouse=True)
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """A directory with APP and APP.pub."""
    monkeypatch.chdir(tmp_path)
    assert ckeygen.main(["app"]) == 0
    capfd.readouterr()


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    """ckeygen in this process."""

    def call(*arguments: str) -> Ended:
        status = ckeygen.main(list(arguments))
        return Ended(status, *capfd.readouterr())

    return call


def listed() -> RevocationList:
    return decode_list(Path("app.revoked").read_bytes())


def serial_of(path: str) -> int:
    key = read_key(path, (ClientKey, WorkerKey))
    assert isinstance(key, ClientKey | WorkerKey)
    return key.identity.certificate.serial


# Issuing


def test_a_clients_key_has_its_name_and_end_and_is_in_the_record(run: Run) -> None:
    before = int(time.time())
    ended = run("--client", "laptop", "--days", "30", "app", "laptop.pub")
    key = read_key("laptop.pub", (ClientKey,))
    certificate = key.identity.certificate
    owner = read_key("app", (OwnerKey,))
    certificate.check(owner.authority_public, ROLE_CLIENT, time.time())
    assert (certificate.name, certificate.not_before) == ("laptop", None)
    assert certificate.not_after is not None and 0 <= certificate.not_after - before - 30 * DAY < 60
    assert (key.fingerprint, key.psk, key.worker_public) == (
        owner.fingerprint, owner.psk, owner.client_key().worker_public,
    )  # fmt: skip
    assert os.stat("laptop.pub").st_mode & 0o777 == 0o600
    (issued,) = read_record("app").issued
    assert (issued.role, issued.name, issued.serial) == (ROLE_CLIENT, "laptop", certificate.serial)
    assert issued.not_after == certificate.not_after
    assert ended.status == 0
    assert re.fullmatch(
        rf"laptop.pub is the key of the client laptop, serial {certificate.serial}, until \d{{4}}-\d\d-\d\d:  "
        r"cexec laptop.pub\n",
        ended.errors,
    )


def test_a_workers_key_serves_and_has_no_end_by_default(run: Run) -> None:
    ended = run("--worker", "box", "app", "box.worker")
    key = read_key("box.worker", (WorkerKey,))
    owner = read_key("app", (OwnerKey,))
    key.identity.certificate.check(owner.authority_public, ROLE_WORKER, time.time())
    assert (key.identity.certificate.name, key.identity.certificate.not_after) == ("box", None)
    assert key.worker_public == owner.client_key().worker_public
    assert ended.errors.endswith(", without an end:  cservice box.worker PROGRAM\n")


def test_a_workers_file_has_nothing_from_which_keys_are_derived(run: Run) -> None:
    """It has neither the seed nor the authority's seed, nor the default client's, in any form."""
    run("--worker", "box", "app", "box.worker")
    owner = read_key("app", (OwnerKey,))
    text = Path("box.worker").read_bytes().lower()
    data = b"".join(bytes.fromhex(value.decode()) for value in re.findall(rb": ((?:[0-9a-f]{2})+)\n", text))
    assert read_key("box.worker", (WorkerKey,)).identity.signing_seed in data  # so it is the content of the file
    for secret in (owner.seed, owner.authority_seed, owner.client_key().identity.signing_seed):
        assert secret not in data and secret.hex().encode() not in text


def test_each_issue_is_another_key(run: Run) -> None:
    run("--client", "laptop", "app", "one")
    run("--client", "laptop", "app", "two")
    one, two = (read_key(name, (ClientKey,)).identity for name in ("one", "two"))
    assert one.certificate.serial != two.certificate.serial and one.signing_seed != two.signing_seed
    assert [issued.serial for issued in read_record("app").issued] == [one.certificate.serial, two.certificate.serial]


@pytest.mark.parametrize("name", ["a b", "x" * 65, "a/b", "ä"])
def test_a_name_that_a_certificate_cannot_have_is_wrong_use(run: Run, name: str) -> None:
    before = contents()
    fails(run("--client", name, "app", "f"), 100, f"--client {name!r}: up to 64 letters, digits, dots, - and _")
    assert contents() == before


def test_a_file_that_exists_is_left_untouched_and_nothing_is_recorded(run: Run) -> None:
    Path("laptop.pub").write_text("mine")
    before = contents()
    fails(run("--client", "laptop", "app", "laptop.pub"), 102, "laptop.pub exists and was left untouched")
    assert contents() == before


def test_keys_are_issued_with_the_private_key_only(run: Run) -> None:
    run("--worker", "box", "app", "box.worker")
    for name, kind in (("app.pub", "client"), ("box.worker", "worker")):
        needed = "keys are issued and revoked with the private key, APP"
        fails(run("--client", "mallory", name, "f"), 101, f"{name} is a {kind} key; {needed}")
        fails(run("--revoke", "box", name), 101, f"{name} is a {kind} key; {needed}")
    assert not os.path.exists("f") and not os.path.exists("box.worker.issued")


def test_the_record_comes_first_so_a_key_that_cannot_be_written_is_in_it(run: Run) -> None:
    fails(run("--client", "laptop", "app", "none/f"), 102, "cannot write none/f: no such file or directory")
    assert [one.name for one in read_record("app").issued] == ["laptop"]


def test_without_a_record_nothing_is_issued(run: Run) -> None:
    os.mkdir("app.issued")
    fails(run("--client", "laptop", "app", "f"), 111, "cannot write app.issued: is a directory")
    assert not os.path.exists("f")


def test_a_private_key_from_a_pipe_has_no_place_for_a_record(run: Run) -> None:
    reader, writer = os.pipe()
    os.write(writer, Path("app").read_bytes())
    os.close(writer)
    ended = run("--client", "laptop", f"/dev/fd/{reader}", "f")
    os.close(reader)
    assert ended.status == 100 and "must be a file for this" in ended.errors
    assert not os.path.exists("f")


def test_the_record_is_not_written_through_a_link(run: Run) -> None:
    Path("precious").write_text("precious")
    os.symlink("precious", "app.issued")
    ended = run("--client", "laptop", "app", "f")
    assert ended.status == 111 and "app.issued" in ended.errors
    assert Path("precious").read_text() == "precious" and not os.path.exists("f")


def test_many_at_once_are_all_recorded() -> None:
    argvs = [command("ckeygen", "--client", f"c{number}", "app", f"f{number}") for number in range(6)]
    argvs += [command("ckeygen", "--revoke", "default", "app"), command("ckeygen", "--revoke", "77", "app")]
    started = [subprocess.Popen(argv, stderr=subprocess.DEVNULL) for argv in argvs]
    assert [process.wait(timeout=60) for process in started] == [0] * len(argvs)
    record = read_record("app")
    assert record.damaged == 0
    assert {one.name: one.serial for one in record.issued} == {f"c{n}": serial_of(f"f{n}") for n in range(6)}
    assert (listed().serial, sorted(listed().revoked)) == (2, [1, 77])


# Revoking


def test_a_name_is_revoked_with_all_its_serials(run: Run) -> None:
    run("--client", "laptop", "app", "one")
    run("--client", "laptop", "app", "two")
    run("--client", "phone", "app", "three")
    ended = run("--revoke", "laptop", "app")
    assert ended.status == 0
    assert listed().serial == 1
    assert listed().revoked == {serial_of("one"): "laptop", serial_of("two"): "laptop"}
    assert ended.errors.splitlines() == [
        f"app.revoked is list 1 and revokes laptop (serial {serial_of('one')}, {serial_of('two')}); "
        "copy it beside every key",
        f"its holder still knows the psk of {listed().fingerprint}; only a new key shuts it out of everything",
    ]
    assert os.stat("app.revoked").st_mode & 0o777 == 0o644


def test_a_serial_is_revoked_also_if_it_is_in_no_record(run: Run) -> None:
    run("--client", "laptop", "app", "one")
    assert run("--revoke", str(serial_of("one")), "app").status == 0
    assert run("--revoke", "12345", "app").status == 0
    assert (listed().serial, listed().revoked) == (2, {serial_of("one"): "laptop", 12345: "?"})


def test_the_default_client_of_app_pub_is_revoked_by_its_name(run: Run) -> None:
    assert run("--revoke", "default", "app").status == 0
    assert listed().revoked == {1: "default"}


def test_what_was_revoked_before_makes_no_new_list(run: Run) -> None:
    run("--revoke", "default", "app")
    before = contents()
    ended = run("--revoke", "default", "app")
    assert (ended.status, ended.errors) == (0, "default was revoked before; app.revoked is list 1\n")
    assert contents() == before


def test_a_name_that_was_never_issued_is_not_revoked(run: Run) -> None:
    fails(
        run("--revoke", "laptop", "app"),
        102,
        "no certificate was issued to laptop (ckeygen --list app); its serial does as well",
    )
    assert not os.path.exists("app.revoked")


def test_a_list_that_was_lost_comes_back_whole_with_a_higher_serial(run: Run) -> None:
    run("--client", "laptop", "app", "one")
    run("--revoke", "laptop", "app")
    run("--revoke", "default", "app")
    os.unlink("app.revoked")
    run("--revoke", "99", "app")
    assert (listed().serial, listed().revoked) == (3, {1: "default", 99: "?", serial_of("one"): "laptop"})


def test_a_record_that_was_lost_takes_nothing_out_of_the_list(run: Run) -> None:
    run("--revoke", "default", "app")
    os.unlink("app.issued")
    run("--revoke", "99", "app")
    assert (listed().serial, listed().revoked) == (2, {1: "default", 99: "?"})


def test_a_revocation_that_a_crash_has_kept_from_the_list_is_told_and_made_good(run: Run) -> None:
    run("--revoke", "99", "app")
    with open("app.issued", "a") as file:
        file.write("revoked 1 2 1795260300\n")
    assert "default  1" in (shown := run("--list", "app").output)
    assert "revoked, but not yet in APP.revoked: revoke it again" in shown
    run("--revoke", "default", "app")
    assert (listed().serial, listed().revoked) == (3, {1: "default", 99: "?"})


def test_a_damaged_list_or_another_applications_is_left_untouched(run: Run) -> None:
    run("--revoke", "default", "app")
    text = Path("app.revoked").read_text()
    Path("app.revoked").write_text(text.replace("revoked: 1 ", "revoked: 2 "))
    before = contents()
    ended = run("--revoke", "99", "app")
    assert ended.status == 102 and "its signature is wrong; remove it, and it is made again" in ended.errors
    assert contents() == before
    run("other")
    run("--revoke", "default", "other")
    os.replace("other.revoked", "app.revoked")
    fails(run("--revoke", "99", "app"), 102, "app.revoked is the list of another application and was left untouched")


# Listing and showing


def test_the_table_has_what_was_issued_when_it_ends_and_its_state(run: Run) -> None:
    run("--client", "laptop", "--days", "30", "app", "one")
    run("--worker", "box", "app", "two")
    with open("app.issued", "a") as file:
        file.write("issued client old 5 86400 172800\n")
    run("--revoke", "box", "app")
    run("--revoke", "99", "app")
    rows = [line.split() for line in run("--list", "app").output.splitlines()]
    assert rows[0] == ["ROLE", "NAME", "SERIAL", "ISSUED", "ENDS", "STATE"]
    assert rows[1] == ["client", "default", "1", "with", "APP.pub", "never", "valid"]
    assert rows[2][:3] == ["client", "laptop", str(serial_of("one"))] and rows[2][-1] == "valid"
    assert rows[3][:3] == ["worker", "box", str(serial_of("two"))] and rows[3][-2:] == ["never", "revoked"]
    assert rows[4] == ["client", "old", "5", "1970-01-02", "00:00", "UTC", "1970-01-03", "00:00", "UTC", "expired"]
    assert rows[5] == ["?", "?", "99", "elsewhere", "?", "revoked"]
    assert len(rows) == 6


def test_a_line_that_a_crash_has_cut_hides_no_other(run: Run) -> None:
    run("--client", "laptop", "app", "one")
    with open("app.issued", "a") as file:
        file.write("issued client pho")
    run("--client", "tablet", "app", "two")
    record = read_record("app")
    assert ([one.name for one in record.issued], record.damaged) == (["laptop", "tablet"], 1)
    assert run("--list", "app").output.splitlines()[-1] == "1 damaged lines of app.issued were read over"


def test_show_tells_of_every_kind_of_file(run: Run) -> None:
    run("--client", "laptop", "--days", "1", "app", "laptop.pub")
    run("--worker", "box", "app", "box.worker")
    run("--revoke", "laptop", "app")
    fingerprint = read_key("app", (OwnerKey,)).fingerprint
    for name, lines in (
        ("app", ["kind: private key"]),
        ("laptop.pub", ["kind: client key", "client: laptop", f"serial: {serial_of('laptop.pub')}"]),
        ("box.worker", ["kind: worker key", "worker: box", "valid until: no date"]),
        (
            "app.revoked",
            ["kind: list of revoked certificates", "list: 1", f"revoked: laptop, serial {serial_of('laptop.pub')}"],
        ),
    ):
        shown = run("--show", name).output.splitlines()
        assert set(lines) <= set(shown) and f"fingerprint: {fingerprint}" in shown


def test_show_of_a_damaged_list_is_101(run: Run) -> None:
    run("--revoke", "default", "app")
    Path("app.revoked").write_text(Path("app.revoked").read_text().replace("serial: 1", "serial: 2"))
    fails(run("--show", "app.revoked"), 101, "app.revoked is damaged: its signature is wrong")


def test_nothing_secret_is_printed_or_recorded(run: Run) -> None:
    ended = [
        run("--client", "laptop", "app", "laptop.pub"),
        run("--worker", "box", "app", "box.worker"),
        run("--revoke", "laptop", "app"),
        run("--list", "app"),
    ]
    ended += [run("--show", name) for name in ("laptop.pub", "box.worker", "app.revoked")]
    public = {"app.revoked", "app.issued"}
    said = "".join(one.output + one.errors for one in ended) + "".join(Path(name).read_text() for name in public)
    keys = [text.decode() for name, text in contents().items() if name not in public]
    hidden = [line.partition(": ")[2] for text in keys for line in text.splitlines() if "authority: " not in line]
    secrets = [value for value in hidden if len(value) >= 64]
    assert len(secrets) > 8
    assert [secret for secret in secrets if secret in said] == []
