"""Who is who: keys of single clients and workers, the clients that a worker serves, and revocation."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from cexec.protocol.base.keys import ClientKey, OwnerKey, WorkerKey
from cexec.system.storage.keyfile import read_key
from tests.conftest import MakeLab, StartService
from tests.environment import clean_environment, command, local_environment
from tests.holders import Authority, Holder
from tests.lab import Host
from tests.loggers import Crat
from tests.service import Application, Service
from tests.waiting import PATIENCE, wait_until

SOON = {"CEXEC_TIMEOUT_ACCEPT": "3"}
TELL = ["sh", "-c", 'echo "$CEXEC_CLIENT"']
HANG = ["sh", "-c", "echo $$; exec sleep 600"]  # one line, so that a test knows that the program runs


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def job(holder: Holder, *options: str, host: Host | None = None) -> subprocess.CompletedProcess[bytes]:
    """One job of this client, which waits for a worker for a few seconds only."""
    return holder.run("-n", *options, host=host, environment=holder.settings(SOON))


def start_job(holder: Holder, *options: str, host: Host | None = None, patience: str = "3") -> subprocess.Popen[str]:
    """`patience`: seconds that it waits for a worker; 0 for ever."""
    argv = command("cexec", "-n", *options, holder.public)
    settings = holder.settings({"CEXEC_TIMEOUT_ACCEPT": patience})
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    if host is not None:
        return host.popen(argv, env=clean_environment(settings), **pipes)
    return subprocess.Popen(argv, env=local_environment(settings), **pipes)  # type: ignore[call-overload, no-any-return]


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def serve(
    service: StartService, holder: Holder, *program: str, options: tuple[str, ...] = (), host: Host | None = None
) -> Service:
    return service(*program, options=options, application=holder, host=host, environment=holder.environment)


# Who calls


def test_the_worker_logs_who_called_and_tells_the_job(service: StartService, authority: Authority) -> None:
    laptop = authority.client("laptop")
    worker = service(*TELL, application=authority.application)
    assert job(laptop).stdout == b"laptop\n"
    for event in ("accepted", "started", "finished"):
        line = worker.wait_for(f" {event} ")
        assert f" name=laptop serial={laptop.serial} " in line
    default = authority.application.run("-n")
    assert default.stdout == b"default\n"
    assert " name=default serial=1 " in worker.lines_with(" finished ", 2)[1]


def test_a_worker_serves_with_its_own_file_on_another_host(
    service: StartService, authority: Authority, lab: MakeLab
) -> None:
    one, two = lab(2).hosts
    box, laptop = authority.worker("box"), authority.client("laptop")
    serve(service, box, *TELL, host=one)
    ended = job(laptop, host=two)
    assert (ended.returncode, ended.stdout) == (0, b"laptop\n"), ended.stderr


def test_a_worker_serves_the_clients_that_a_pattern_names_and_tells_the_others(
    service: StartService, authority: Authority
) -> None:
    options = ("--clients", "lap*", "--clients", "ph[o]ne", "--name", "w1")
    worker = service(*TELL, options=options, application=authority.application)
    for name in ("laptop", "phone"):
        assert job(authority.client(name)).stdout == f"{name}\n".encode()
    for name in ("Laptop", "phones"):
        ended = job(authority.client(name))
        assert ended.returncode == 111
        reason = f"this worker does not serve the client {name}"
        assert f"; worker w1 refuses: {reason}\n" in ended.stderr.decode()
        assert f'reason="{reason}"' in worker.wait_for(f"serve the client {name}")
    assert len([line for line in worker.lines if " accepted " in line]) == 2


def test_where_one_worker_refuses_a_client_another_one_serves_it(service: StartService, authority: Authority) -> None:
    service("false", options=["--clients", "nobody"], application=authority.application)
    service(*TELL, application=authority.application)
    assert job(authority.client("laptop")).stdout == b"laptop\n"


# Revoked clients


def test_a_revoked_client_is_refused_with_the_reason_and_others_are_not(
    service: StartService, authority: Authority
) -> None:
    box, laptop, phone = authority.worker("box"), authority.client("laptop"), authority.client("phone")
    worker = serve(service, box, *TELL)
    assert job(laptop).returncode == 0
    authority.revoke("laptop")
    authority.deliver(box)
    worker.wait_for(" revocations ")
    ended = job(laptop)
    assert ended.returncode == 111
    reason = f"certificate of laptop (serial {laptop.serial}) is revoked"
    assert f"; worker box refuses: {reason}\n" in ended.stderr.decode()
    assert reason in worker.wait_for(" refused ")
    assert job(phone).stdout == b"phone\n"


def test_revocation_ends_the_running_job_of_that_client_and_no_other(
    service: StartService, authority: Authority, lab: MakeLab
) -> None:
    one, two = lab(2).hosts
    box, laptop, phone = authority.worker("box"), authority.client("laptop"), authority.client("phone")
    worker = serve(service, box, *HANG, options=("-j", "2"), host=one)
    revoked, other = (start_job(holder, host=two) for holder in (laptop, phone))
    assert line_of(revoked) and line_of(other)
    authority.revoke("laptop")
    authority.deliver(box)
    _, errors = revoked.communicate(timeout=PATIENCE)
    assert revoked.returncode == 111
    assert f" name=laptop serial={laptop.serial} " in worker.wait_for(" revoked ")
    assert "worker box" in errors
    assert other.poll() is None
    other.kill()
    other.communicate()


def test_a_job_whose_output_can_be_taken_back_is_asked_for_again_and_refused(
    service: StartService, authority: Authority, tmp_path: Path
) -> None:
    """The client of a revoked certificate learns the reason from the next announcement."""
    box, laptop = authority.worker("box"), authority.client("laptop")
    worker = serve(service, box, "sleep", "600")
    asking = start_job(laptop)
    worker.wait_for(" started ")
    authority.revoke("laptop")
    authority.deliver(box)
    _, errors = asking.communicate(timeout=PATIENCE)
    assert asking.returncode == 111
    assert "running the job again" in errors
    assert f"worker box refuses: certificate of laptop (serial {laptop.serial}) is revoked" in errors


def test_a_client_that_waits_in_the_queue_is_refused_when_it_is_revoked(
    service: StartService, authority: Authority
) -> None:
    box, laptop, phone = authority.worker("box"), authority.client("laptop"), authority.client("phone")
    worker = serve(service, box, *HANG, options=("-j", "1"))
    running = start_job(phone)
    assert line_of(running)
    waiting = start_job(laptop)
    authority.revoke("laptop")
    authority.deliver(box)
    _, errors = waiting.communicate(timeout=PATIENCE)
    assert waiting.returncode == 111 and "is revoked" in errors
    assert "is revoked" in worker.wait_for(" refused ")
    running.kill()
    running.communicate()


# A list that cannot be trusted


def test_a_list_that_was_seen_and_is_missing_refuses_everybody_until_it_is_back(
    service: StartService, authority: Authority
) -> None:
    box, phone = authority.worker("box"), authority.client("phone")
    authority.revoke("default")
    authority.deliver(box)
    worker = serve(service, box, *TELL)
    assert job(phone).returncode == 0
    box.list.unlink()
    worker.wait_for("app.revoked is missing, and list 1 was seen before")
    ended = job(phone)
    assert ended.returncode == 111
    assert "worker box refuses: no certificate is accepted: " in ended.stderr.decode()
    assert "is missing, and list 1 was seen before; copy it from its owner again" in ended.stderr.decode()
    authority.deliver(box)
    worker.wait_for("a new list has come")
    assert job(phone).stdout == b"phone\n"


def test_a_client_that_was_refused_for_want_of_a_list_is_served_when_it_is_back(
    service: StartService, authority: Authority
) -> None:
    """Regression: the worker remembered the refusal, and the client waited until it gave up."""
    box, phone = authority.worker("box"), authority.client("phone")
    authority.revoke("default")
    authority.deliver(box)
    worker = serve(service, box, *TELL)
    box.list.unlink()
    worker.wait_for("app.revoked is missing, and list 1 was seen before")
    waiting = start_job(phone, patience="0")
    worker.wait_for(" refused ")
    authority.deliver(box)
    output, errors = waiting.communicate(timeout=PATIENCE)
    assert (waiting.returncode, output) == (0, "phone\n"), errors


def test_a_worker_that_starts_without_its_list_says_so_and_refuses_everybody(
    service: StartService, authority: Authority
) -> None:
    box, phone = authority.worker("box"), authority.client("phone")
    worker = serve(service, box, *TELL, options=("--require-revoked",))
    assert "is missing and required; copy it from its owner" in worker.wait_for(" revocations ")
    assert "is missing and required" in job(phone).stderr.decode()
    authority.revoke("default")
    authority.deliver(box)
    worker.wait_for("a new list has come")
    assert job(phone).stdout == b"phone\n"


def test_a_client_that_has_lost_its_list_trusts_no_worker(service: StartService, authority: Authority) -> None:
    box, phone = authority.worker("box"), authority.client("phone")
    serve(service, box, *TELL)
    required = job(phone, "--require-revoked")
    assert required.returncode == 111
    assert f"no worker of {phone.fingerprint} is trusted: " in required.stderr.decode()
    assert "is missing and required; copy it from its owner\n" in required.stderr.decode()
    authority.revoke("default")
    authority.deliver(phone)
    assert job(phone, "--require-revoked").stdout == b"phone\n"
    phone.list.unlink()
    lost = job(phone)
    assert lost.returncode == 111
    assert "is missing, and list 1 was seen before; copy it from its owner again\n" in lost.stderr.decode()


# Revoked workers


def test_a_client_does_not_take_a_revoked_worker(service: StartService, authority: Authority) -> None:
    box, tower, phone = authority.worker("box"), authority.worker("tower"), authority.client("phone")
    serve(service, box, "echo", "box")
    authority.revoke("box")
    authority.deliver(phone)
    ended = job(phone)
    assert (ended.returncode, ended.stdout) == (111, b"")
    reason = f"worker box was not taken: certificate of box (serial {box.serial}) is revoked"
    assert reason in ended.stderr.decode()
    serve(service, tower, "echo", "tower")
    assert job(phone).stdout == b"tower\n"
    everywhere = job(phone, "--all")
    assert everywhere.stdout == b"tower\n"
    assert "did not finish: certificate of box" in everywhere.stderr.decode()


def test_a_client_hangs_up_on_a_worker_that_is_revoked_and_repeats_the_job_elsewhere(
    service: StartService, authority: Authority
) -> None:
    box, tower, phone = authority.worker("box"), authority.worker("tower"), authority.client("phone")
    hanging = serve(service, box, "sleep", "600")
    running = start_job(phone)
    hanging.wait_for(" started ")
    serve(service, tower, "echo", "tower")
    authority.revoke("box")
    authority.deliver(phone)
    output, errors = running.communicate(timeout=PATIENCE)
    assert (running.returncode, output) == (0, "tower\n")
    assert f"failed: certificate of box (serial {box.serial}) has been revoked; running the job again" in errors
    wait_until(lambda: not hanging.started())


def test_cmap_gives_no_task_to_a_revoked_worker(service: StartService, authority: Authority) -> None:
    box, tower, phone = authority.worker("box"), authority.worker("tower"), authority.client("phone")
    serve(service, box, "echo", "box")
    authority.revoke("box")
    authority.deliver(phone)
    serve(service, tower, "echo", "tower")
    argv = command("cmap", "--array", "1-5", phone.public)
    ended = subprocess.run(
        argv, env=local_environment(phone.environment), capture_output=True, text=True, timeout=PATIENCE
    )
    assert (ended.returncode, ended.stdout) == (0, "tower\n" * 5), ended.stderr


def cps(holder: Holder) -> subprocess.CompletedProcess[str]:
    argv = command("cps", "--json", holder.public)
    environment = local_environment(holder.environment)
    return subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=PATIENCE)


def test_cps_marks_a_revoked_worker_and_says_that_no_list_is_trusted(
    service: StartService, authority: Authority
) -> None:
    box, tower, phone = authority.worker("box"), authority.worker("tower"), authority.client("phone")
    for holder in (box, tower):
        serve(service, holder, "true")
    authority.revoke("box")
    authority.deliver(phone)
    ended = cps(phone)
    health = {row["name"]: row["health"] for row in map(json.loads, ended.stdout.splitlines())}
    assert health == {"box": f"certificate {box.serial} is revoked", "tower": "ok"}
    phone.list.unlink()
    missing = cps(phone)
    assert "is missing, and list 1 was seen before; copy it from its owner again; clients trust no" in missing.stderr
    assert missing.returncode == 0 and len(missing.stdout.splitlines()) == 2


def test_a_logger_does_not_believe_a_revoked_worker(
    service: StartService, authority: Authority, tmp_path: Path
) -> None:
    """The client that has no list yet still takes its jobs there."""
    box, phone, watcher = authority.worker("box"), authority.client("phone"), authority.client("watcher")
    serve(service, box, "true")
    authority.revoke("box")
    authority.deliver(watcher)
    logger = Crat(tmp_path, watcher.public, environment=watcher.environment)
    try:
        assert job(phone).returncode == 0
        logger.wait_for(f" revoked=box serial={box.serial}")
        assert not [line for line in logger.lines() if "completed" in line]
    finally:
        logger.close()


def test_a_revoked_worker_does_not_start(authority: Authority) -> None:
    box = authority.worker("box")
    authority.revoke("box")
    authority.deliver(box)
    argv = command("cservice", box.secret, "true")
    environment = local_environment(box.environment)
    ended = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=PATIENCE)
    assert ended.returncode == 111
    assert ended.stderr == (
        f"cservice: {box.secret}: this worker's own certificate is revoked; ask its owner for a new one\n"
    )


# Two keys at once


def test_a_worker_serves_an_old_key_as_well_and_its_slots_are_shared(
    service: StartService, tmp_path: Path, lab: MakeLab
) -> None:
    one, two = lab(2).hosts
    new, old = (Application(tmp_path, name) for name in ("new", "old"))
    worker = service(*HANG, options=["--also", str(old.secret), "-j", "1"], application=new, host=one)
    assert f"serving {new.fingerprint} and {old.fingerprint} with 1 slot" in worker.lines[0]
    argvs = [command("cexec", "-n", application.public) for application in (new, old)]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    running = two.popen(argvs[0], env=clean_environment(), **pipes)
    assert line_of(running)
    for argv in (argvs[1], argvs[0]):  # each waits for the slot that a client of the other key has
        waiting = two.popen(argv, env=clean_environment(), **pipes)
        running.kill()
        running.communicate()
        assert line_of(waiting)
        running = waiting
    running.kill()
    running.communicate()
    assert len(worker.lines_with(" accepted ", 3)) == 3


def test_both_keys_have_their_censuses_alerts_and_numbers(service: StartService, tmp_path: Path) -> None:
    new, old = (Application(tmp_path, name) for name in ("new", "old"))
    state = {"XDG_STATE_HOME": str(tmp_path / "state")}
    service("true", options=["--also", str(old.secret), "--name", "w1"], application=new, environment=state)
    for application in (new, old):
        (tmp_path / application.fingerprint).mkdir()
        logger = Crat(tmp_path / application.fingerprint, application.public)
        try:
            assert application.run("-n").returncode == 0
            assert logger.wait_for("w1")
        finally:
            logger.close()
        shown = subprocess.run(
            command("cps", application.public),
            env=local_environment(),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert "w1" in shown.stdout
    numbers = {path.name: path.read_bytes()[-1] for path in (tmp_path / "state" / "cexec").iterdir()}
    assert numbers == {f"series-{application.fingerprint}-w1": 1 for application in (new, old)}


def test_each_key_has_a_list_of_its_own(service: StartService, authority: Authority, tmp_path: Path) -> None:
    """The default client of both has serial 1; only the old key's is revoked."""
    (tmp_path / "other").mkdir()
    other = Application(tmp_path / "other", "new")
    authority.revoke("default")
    service(*TELL, options=["--also", str(authority.application.secret)], application=other)
    assert other.run("-n", environment=SOON).stdout == b"default\n"
    refused = authority.application.run("-n", environment=SOON)
    assert refused.returncode == 111
    assert b"certificate of default (serial 1) is revoked" in refused.stderr


def test_a_list_in_another_place_is_that_of_the_first_key_only(
    service: StartService, authority: Authority, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    other = Application(tmp_path / "other", "old")
    authority.revoke("default")
    place = tmp_path / "list"
    (tmp_path / "app.revoked").rename(place)
    options = ["--also", str(other.secret)]
    environment = {"CEXEC_REVOKED": str(place), "XDG_STATE_HOME": str(tmp_path / "state")}
    service(*TELL, options=options, application=authority.application, environment=environment)
    assert other.run("-n", environment=SOON).stdout == b"default\n"
    assert b"is revoked" in authority.application.run("-n", environment=SOON).stderr


def test_the_same_key_is_not_served_twice(authority: Authority) -> None:
    app = authority.application
    argv = command("cservice", "--also", app.secret, app.secret, "true")
    ended = subprocess.run(argv, env=local_environment(), capture_output=True, text=True, timeout=PATIENCE)
    assert ended.returncode == 100
    assert ended.stderr == f"cservice: --also {app.secret}: its key {app.fingerprint} is served already\n"


# What a worker knows


def memory_of(pid: int) -> bytes:
    """All that a process may write to, as its user or root can read it."""
    found = []
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for line in maps:
            where, mode, *_ = line.split()
            if not mode.startswith("rw"):
                continue
            begin, end = (int(digits, 16) for digits in where.split("-"))
            memory.seek(begin)
            found.append(memory.read(end - begin))
    return b"".join(found)


def test_neither_memory_nor_files_of_a_worker_have_what_keys_are_made_of(
    service: StartService, authority: Authority
) -> None:
    box, laptop = authority.worker("box"), authority.client("laptop")
    worker = serve(service, box, *TELL)
    assert job(laptop).stdout == b"laptop\n"
    owner = read_key(str(authority.application.secret), (OwnerKey,))
    own = read_key(str(box.secret), (WorkerKey,))
    wait_until(lambda: not worker.started())  # nothing of the job goes while we look at it
    places = [memory_of(pid) for pid in worker.pids()] + [box.secret.read_bytes()]
    assert len(places) > 1
    assert any(own.identity.signing_seed in place for place in places)  # so the secrets of this process are seen
    clients = [owner.client_key(), read_key(str(laptop.public), (ClientKey,))]
    for secret in (owner.seed, owner.authority_seed, *(client.identity.signing_seed for client in clients)):
        assert not any(secret in place or secret.hex().encode() in place for place in places)
