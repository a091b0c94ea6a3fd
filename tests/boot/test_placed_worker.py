"""A worker on a host: what is written, how its start is judged, and its removal; cservice is a script here."""

from __future__ import annotations

import base64
import os
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cexec.boot.remote import placed_worker, watchdog
from cexec.boot.remote.place import HostPlace, RemoteError
from cexec.boot.remote.placed_worker import PlacedWorker, remove
from cexec.boot.remote.service import start_time
from tests.boot.test_remote_place import listing, put, request
from tests.boot.wheelhouse import make_wheel
from tests.waiting import wait_until

SERVES = "#!/bin/sh\necho 'cservice: serving x' >&2\nexec sleep 100\n"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HostPlace]:
    """A home with a release whose cservice is `SERVES`; every worker in it is stopped at the end."""
    for name in ("XDG_STATE_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    home = tmp_path / "home"
    home.mkdir()
    found = HostPlace(home)
    install_release(found, tmp_path, "1-abc", SERVES)
    yield found
    for one in placed_worker.all_workers(found):
        one.stop(0.0)


def install_release(place: HostPlace, directory: Path, name: str, cservice: str) -> None:
    put(place, *request(make_wheel(directory, "alpha"), name=name))
    python = place.releases / name / "bin" / "python"
    python.unlink()
    python.write_text('#!/bin/sh\nshift; exec /bin/sh "$@"\n')  # without -I, for a shell
    python.chmod(0o755)
    (place.releases / name / "bin" / "cservice").write_text(cservice)


def start_request(**changes: Any) -> dict[str, Any]:
    record = {
        "app": "app", "fingerprint": "0fe5-08ec", "options": ["-j", "2"], "program": ["tr", "a b", "{python}"],
        "environment": {"CEXEC_GROUP": "10.0.0.255"}, "how": "detached", "name": "node1", "serial": 7,
        "not_after": None, "release": "1-abc",
    }  # fmt: skip
    record |= {name: value for name, value in changes.items() if name in record}
    usual = {"key": base64.b64encode(b"the key").decode(), "revoked": None, "state": ["series-x"], "cache": ["speed-1"]}
    return {
        **usual,
        "grace": 0.5,
        **{name: value for name, value in changes.items() if name in usual},
        "record": record,
    }


def test_a_worker_is_started_and_described(place: HostPlace) -> None:
    found = PlacedWorker(place, "0fe5-08ec-node1").start(start_request(revoked=base64.b64encode(b"list").decode()))
    directory = place.workers / "0fe5-08ec-node1"
    assert found["running"] and found["serial"] == 7 and found["version"] == "1"
    assert (directory / "app.worker").read_bytes() == b"the key"
    assert os.stat(directory / "app.worker").st_mode & 0o777 == 0o600 and os.stat(directory).st_mode & 0o777 == 0o700
    assert (directory / "app.revoked").read_bytes() == b"list"
    lines = (directory / "start").read_text().splitlines()
    assert "export CEXEC_GROUP=10.0.0.255" in lines
    python = f"{place.releases}/1-abc/bin/python"
    words = [
        python,
        "-I",
        f"{place.releases}/1-abc/bin/cservice",
        "-j",
        "2",
        f"{directory}/app.worker",
        "tr",
        "a b",
        python,
    ]
    assert shlex.split(lines[-1]) == ["exec", *words]


def test_a_second_start_takes_the_place_of_the_first_and_keeps_the_key(place: HostPlace) -> None:
    one = PlacedWorker(place, "w")
    one.start(start_request())
    first = (one.directory / "pid").read_text()
    one.start(start_request(key=None, program=["cat"]))
    assert (one.directory / "pid").read_text() != first and (one.directory / "app.worker").read_bytes() == b"the key"
    assert (one.directory / "log.old").exists() and one.look()["program"] == ["cat"]


def test_an_upgrade_removes_the_release_that_nobody_needs(place: HostPlace, tmp_path: Path) -> None:
    PlacedWorker(place, "w").start(start_request())
    PlacedWorker(place, "other").start(start_request())
    install_release(place, tmp_path, "2-def", SERVES)
    PlacedWorker(place, "w").start(start_request(key=None, release="2-def"))
    assert sorted(os.listdir(place.releases)) == ["1-abc", "2-def"]
    PlacedWorker(place, "other").start(start_request(key=None, release="2-def"))
    assert os.listdir(place.releases) == ["2-def"]


def test_a_cservice_that_ends_is_quoted(place: HostPlace, tmp_path: Path) -> None:
    install_release(
        place, tmp_path, "bad", "echo warning >&2\necho 'cservice: there is no program foo' >&2\nexit 100\n"
    )
    with pytest.raises(RemoteError, match="cservice did not start: cservice: there is no program foo") as caught:
        PlacedWorker(place, "w").start(start_request(release="bad"))
    assert caught.value.kind == "worker" and not PlacedWorker(place, "w").look()["running"]


def test_a_cservice_that_never_serves_is_stopped_waiting_for(
    place: HostPlace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(placed_worker, "START_PATIENCE", 0.2)
    install_release(place, tmp_path, "mute", "exec sleep 100\n")
    with pytest.raises(RemoteError, match="has not served within"):
        PlacedWorker(place, "w").start(start_request(release="mute"))


@pytest.mark.parametrize("changes", [{"release": "gone"}, {"key": None}])
def test_what_has_gone_from_the_host_is_named(changes: dict[str, Any], place: HostPlace) -> None:
    with pytest.raises(RemoteError, match="has gone"):
        PlacedWorker(place, "w").start(start_request(**changes))


def test_stop_leaves_the_files_and_remove_takes_them(place: HostPlace) -> None:
    one = PlacedWorker(place, "w")
    one.start(start_request())
    assert one.stop(1.0) is True and one.stop(1.0) is False
    assert (one.directory / "app.worker").exists()
    result = remove(place, ["w"], 1.0, keep_programs=False)
    # A release whose Python was exchanged by this test has the files that it noted, and no other.
    assert result == {"removed": ["w"], "left": [], "place": False}
    assert listing(place.home) == []


def test_what_cservice_writes_elsewhere_goes_too_if_it_is_new(place: HostPlace) -> None:
    state, cache = place.home / ".local/state/cexec", place.home / ".cache/cexec"
    cache.mkdir(parents=True)
    (cache / "speed-1").write_text("of an earlier cservice")
    PlacedWorker(place, "w").start(start_request())
    state.mkdir(parents=True)
    (state / "series-x").write_text("1")
    remove(place, ["w"], 1.0, keep_programs=False)
    assert listing(place.home) == [".cache", ".cache/cexec", ".cache/cexec/speed-1"]


def test_the_files_of_others_are_told_and_stay(place: HostPlace) -> None:
    PlacedWorker(place, "w").start(start_request())
    strange = place.workers / "w" / "notes"
    strange.write_text("mine")
    result = remove(place, ["w"], 1.0, keep_programs=False)
    assert str(strange) in result["left"] and strange.read_text() == "mine"


def test_a_worker_of_another_host_with_this_home_stays(place: HostPlace) -> None:
    PlacedWorker(place, "one").start(start_request())
    PlacedWorker(place, "two").start(start_request())
    assert remove(place, ["one"], 1.0, keep_programs=False)["place"] is True
    assert PlacedWorker(place, "two").look()["running"] and os.listdir(place.releases) == ["1-abc"]


def test_nothing_is_made_where_there_is_nothing_to_remove(tmp_path: Path) -> None:
    assert remove(HostPlace(tmp_path), ["w"], 1.0, keep_programs=False)["removed"] == []
    assert listing(tmp_path) == []


class Clock:
    """Time that passes only while somebody sleeps; `then` is called at certain times."""

    def __init__(self, then: dict[float, Any] | None = None) -> None:
        self.now = 0.0
        self._then = then or {}

    def time(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        for moment in [moment for moment in self._then if moment <= self.now]:
            self._then.pop(moment)()


def test_a_watchdog_removes_after_thirty_seconds_of_silence(place: HostPlace) -> None:
    one = PlacedWorker(place, "w")
    one.start(start_request())
    one.heartbeat.write_text("")
    heard = {5.0 * number: lambda number=number: os.utime(one.heartbeat, (number, number)) for number in range(1, 5)}
    clock = Clock(heard)
    watchdog.watch(place, one, now=clock.time, sleep=clock.sleep)
    assert 20 + 30 <= clock.now <= 20 + 32
    assert listing(place.home) == []


def test_a_watchdog_ends_when_somebody_else_has_removed_the_worker(place: HostPlace) -> None:
    one = PlacedWorker(place, "w")
    one.start(start_request())
    one.heartbeat.write_text("")
    clock = Clock({7.0: lambda: remove(place, ["w"], 0.5, keep_programs=False)})
    watchdog.watch(place, one, now=clock.time, sleep=clock.sleep)
    assert clock.now <= 9


def test_a_watchdog_also_removes_what_was_never_started(place: HostPlace) -> None:
    """cboot was killed while it installed."""
    one = PlacedWorker(place, "w")
    one.directory.mkdir(parents=True)
    one.heartbeat.write_text("")
    clock = Clock()
    watchdog.watch(place, one, now=clock.time, sleep=clock.sleep)
    assert listing(place.home) == []


def test_the_watchdog_is_a_daemon_and_is_started_once(place: HostPlace) -> None:
    one = PlacedWorker(place, "w")
    said: list[str] = []
    watchdog.hold(place, "w", "run1", iter([b".", b""]).__next__, lambda: said.append("ready"))
    first = one.heartbeat.read_text()
    with pytest.raises(RemoteError, match="another cboot has an ephemeral worker") as caught:
        watchdog.hold(place, "w", "run2", lambda: b"", lambda: said.append("never"))
    assert caught.value.kind == "busy"
    watchdog.hold(place, "w", "run1", lambda: b"", lambda: said.append("ready"))
    assert said == ["ready", "ready"] and one.heartbeat.read_text() == first
    pid = int(first.split()[0])
    assert os.getsid(pid) != os.getsid(0)
    wait_until(lambda: sorted(os.listdir(f"/proc/{pid}/fd")) == ["0", "1", "2"])  # and others while it looks at files
    watchdog.end(one)
    wait_until(lambda: start_time(pid) == "")
