"""`run` on a real service, by both clients: every keyword, and how each kind of failure is told."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cexec.errors import (
    DisconnectedError,
    GroupError,
    KeyFileError,
    LocalError,
    NoWorkerError,
    RefusedError,
    UsageError,
)
from cexec.python.async_client import AsyncClient
from cexec.python.completed import Completed
from cexec.python.sync_client import Client
from tests.python.clients import ALLOW, SHELL, run
from tests.service import Application, Service
from tests.waiting import wait_until

Run = Callable[..., Completed[Any]]


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Application]:
    application = Application(tmp_path_factory.mktemp("run"))
    service = Service(application, SHELL, [*ALLOW, "--label", "colour=red", "--name", "here"])
    yield application
    service.close()


@pytest.fixture(params=["AsyncClient", "Client"])
def call(request: pytest.FixtureRequest, worker: Application) -> Iterator[Run]:
    """Calls `run` of either client."""
    yield from runs(request.param, worker)


@pytest.fixture(params=["AsyncClient", "Client"])
def impatient(request: pytest.FixtureRequest, worker: Application) -> Iterator[Run]:
    """As `call`, and soon gives up the search for a worker that fits: but not before a busy one has answered."""
    yield from runs(request.param, worker, accept_timeout=4.0)


def runs(kind: str, worker: Application, accept_timeout: float | None = None) -> Iterator[Run]:
    if kind == "Client":
        with Client(worker.public, accept_timeout=accept_timeout) as client:
            yield client.run
        return

    def call(*arguments: Any, **keywords: Any) -> Completed[Any]:
        async def scene() -> Completed[Any]:
            async with AsyncClient(worker.public, accept_timeout=accept_timeout) as client:
                result: Completed[Any] = await client.run(*arguments, **keywords)
                return result

        return run(scene())

    yield call


def test_a_result_is_that_of_subprocess_and_more(call: Run) -> None:
    result = call(b"abc", args=["cat; echo err >&2; exit 3", "sh", "x"])
    assert isinstance(result, subprocess.CompletedProcess)
    assert (result.args, result.returncode) == (["cat; echo err >&2; exit 3", "sh", "x"], 3)
    assert (result.stdout, result.stderr, result.files) == (b"abc", b"err\n", {})
    assert (result.worker.partition("@")[0], result.attempts, result.message) == ("here", 1, "")
    assert 0 < result.duration < 60 and result.usage.user_time + result.usage.system_time > 0
    assert result.usage.memory > 100_000
    with pytest.raises(subprocess.CalledProcessError):
        result.check_returncode()
    assert "returncode=3" in repr(result) and "worker='here@" in repr(result)


def test_death_by_a_signal_is_negative(call: Run) -> None:
    assert call(args=["kill -15 $$"]).returncode == -signal.SIGTERM


@pytest.mark.parametrize(
    "kind", ["bytes", "bytearray", "memoryview", "path", "file", "file in the middle", "memory", "pipe"]
)
def test_inputs(call: Run, kind: str, tmp_path: Path) -> None:
    path = tmp_path / "input"
    path.write_bytes(b"0123456789")
    file = path.open("rb")
    reading, writing = os.pipe()
    os.write(writing, b"0123456789")
    os.close(writing)
    pipe = os.fdopen(reading, "rb")
    if kind.endswith("middle"):
        file.read(5)
    inputs: dict[str, Any] = {
        "bytes": b"0123456789", "bytearray": bytearray(b"0123456789"), "memoryview": memoryview(b"0123456789"),
        "path": path, "file": file, "file in the middle": file, "memory": io.BytesIO(b"0123456789"), "pipe": pipe,
    }  # fmt: skip
    with file, pipe:
        assert call(inputs[kind], args=["cat"]).stdout == (b"56789" if kind.endswith("middle") else b"0123456789")
        assert file.tell() == (5 if kind.endswith("middle") else 0)


def test_a_long_input_and_output(call: Run) -> None:
    data = os.urandom(5_000_000)
    assert call(data, args=["cat"]).stdout == data


def test_arguments_and_variables(call: Run) -> None:
    result = call(
        args=['printf "%s|" "$@"; echo "$PEER_A $PEER_B $PEER_C"', "sh", "a b", b"\xff", Path("/x"), 7, 1.5],
        env={"A": "one", "B": b"two", "C": 3},
    )
    assert result.stdout == b"a b|\xff|/x|7|1.5|one two 3\n"


def test_texts(call: Run) -> None:
    assert call("gr\u00fcn\n", args=["cat"], text=True).stdout == "gr\u00fcn\n"
    assert call("gr\u00fcn", args=["cat"], encoding="latin-1").stdout == "gr\u00fcn"
    assert call(args=[r"printf 'a\r\nb\rc'"], text=True).stdout == "a\nb\nc"
    assert call(args=[r"printf '\377'"], text=True, errors="replace").stdout == "\ufffd"
    with pytest.raises(UsageError, match="input is a str: give bytes, or text=True"):
        call("text", args=["cat"])


def test_files_go_and_come_back(call: Run, tmp_path: Path) -> None:
    (tmp_path / "two").write_bytes(b"2")
    result = call(
        args=["cat one sub/two > three; echo 4 > four; exit 1"],
        files={"one": b"1", "sub/two": tmp_path / "two"},
        fetch=["three", "four", "none"],
    )
    assert result.files == {"three": b"12", "four": b"4\n"}
    target = tmp_path / "here"
    result = call(args=["echo new > out"], fetch={"out": target})
    assert (result.files, target.read_bytes()) == ({"out": target}, b"new\n")
    assert {*tmp_path.iterdir()} == {tmp_path / "two", target}


def test_a_file_that_does_not_come_is_a_failure_only_of_a_program_that_succeeds(call: Run, tmp_path: Path) -> None:
    for fetch in (["none"], {"none": tmp_path / "none"}):
        with pytest.raises(LocalError, match="cannot fetch none: the program has succeeded, but"):
            call(args=["true"], fetch=fetch)
        assert call(args=["false"], fetch=fetch).files == {}
    assert not list(tmp_path.iterdir())


def test_placement(call: Run) -> None:
    for where in (
        {"need": "colour=red"},
        {"need": {"colour": "red"}},
        {"need": ["colour=red", "cpus=1"]},
        {"on": "here"},
        {"on": ["here", "there"]},
        {"exclude": "there"},
        {"weight": 3},
    ):
        assert call(args=["echo"], **where).returncode == 0


def test_no_worker_fits(impatient: Run) -> None:
    with pytest.raises(NoWorkerError, match="fits: 1 worker exists; here: has colour=red, not blue"):
        impatient(args=["echo"], need={"colour": "blue"})
    with pytest.raises(NoWorkerError, match="fits"):
        impatient(args=["echo"], exclude=["here"])


def test_a_time_limit_is_kept_by_the_worker(call: Run) -> None:
    result = call(args=["sleep 60"], time_limit=0.2)
    assert result.returncode < 0 and "time limit of 0.2 s" in result.message
    assert call(args=["exit 4"], time_limit="1m").returncode == 4


def test_check(call: Run) -> None:
    with pytest.raises(subprocess.CalledProcessError) as caught:
        call(args=["echo out; echo err >&2; exit 7"], check=True)
    assert (caught.value.returncode, caught.value.output, caught.value.stderr) == (7, b"out\n", b"err\n")
    assert call(args=["exit 0"], check=True).returncode == 0


def test_a_timeout_ends_the_job_there(call: Run, tmp_path: Path) -> None:
    script = f"echo $$ > {tmp_path}/pid; echo begun; sleep 1234"
    with pytest.raises(subprocess.TimeoutExpired) as caught:
        call(args=[script], timeout=4.0)
    assert (caught.value.timeout, caught.value.cmd, caught.value.output) == (4.0, [script], b"begun\n")
    pid = int((tmp_path / "pid").read_text())
    wait_until(lambda: not Path(f"/proc/{pid}").exists())


def test_lost_workers(call: Run, tmp_path: Path) -> None:
    once = f"test -e {tmp_path}/again || {{ touch {tmp_path}/again; kill -9 $PPID; sleep 60; }}; cat"
    result = call(b"input", args=[once])
    assert (result.stdout, result.attempts) == (b"input", 2)
    with pytest.raises(
        DisconnectedError, match=r"^worker here at .* failed: .*; not repeated, because --retries is 0$"
    ):
        call(args=["kill -9 $PPID; sleep 60"], retries=0)
    with pytest.raises(DisconnectedError, match=r"because 2 attempts are enough \(--retries\)"):
        call(args=["kill -9 $PPID; sleep 60"], retries=1)


def test_a_service_that_is_once_never_repeats(tmp_path: Path) -> None:
    application = Application(tmp_path)
    service = Service(application, SHELL, [*ALLOW, "--once"])
    try:
        with Client(application.public) as client:
            with pytest.raises(DisconnectedError, match="must not run a job twice"):
                client.run(args=[f"echo x >> {tmp_path}/runs; kill -9 $PPID; sleep 60"], retries=5)
            assert (tmp_path / "runs").read_text() == "x\n"
            assert [one.stdout for one in client.map([b"1", b"2", b"3"] * 10, args=["cat"])] == [b"1", b"2", b"3"] * 10
    finally:
        service.close()


def test_a_refusal_has_the_words_of_the_command(tmp_path: Path) -> None:
    application = Application(tmp_path)
    service = Service(application, ["cat"])
    try:
        with Client(application.public) as client, pytest.raises(RefusedError) as caught:
            client.run(args=["x"])
        assert str(caught.value) in application.run("--", "x").stderr.decode()
    finally:
        service.close()


def test_nobody_answers(tmp_path: Path) -> None:
    application = Application(tmp_path)
    with Client(application.public, accept_timeout=0.5) as client:
        with pytest.raises(NoWorkerError):
            client.run(on="somebody")  # who would be waited for without a limit
        with pytest.raises(NoWorkerError) as caught:
            client.run()
    told = application.run(environment={"CEXEC_TIMEOUT_ACCEPT": "0.5"}).stderr.decode()
    assert str(caught.value).split(";")[0] in told
    assert str(caught.value).endswith(f"cexec --explain {application.public} tells why")


@pytest.mark.parametrize(
    ("keywords", "said"),
    [
        ({"args": "one text"}, "args is a single text"),
        ({"args": [object()]}, "neither a text nor a number nor a path"),
        ({"args": ["a\0b"]}, "contains a NUL"),
        ({"args": ["x" * 200_000]}, "give the rest as standard input"),
        ({"env": {"A B": "x"}}, "cannot be a variable's name"),
        ({"retries": -1}, "retries is -1"),
        ({"retries": "2"}, "retries is '2'"),
        ({"weight": 0}, "weight is 0"),
        ({"time_limit": "soon"}, "time_limit"),
        ({"time_limit": 0}, "time_limit"),
        ({"need": "=x"}, "need"),
        ({"on": ","}, "--on names no worker"),
        ({"on": "a", "exclude": "a"}, "both asked for and not wanted"),
        ({"files": {"../x": b""}}, "names in the job's directory are relative"),
        ({"files": {"x": 1}}, "give bytes, or the path of a file"),
        ({"fetch": ["a", "a"]}, "twice"),
        ({"fetch": "a"}, "fetch is a single text"),
        ({"files": {str(number): b"" for number in range(1000)}}, "files can go with a job"),
        ({"files": {f"{number:0250}": b"" for number in range(768)}}, "at most 196608 fit"),
        ({"args": [""] * 70_000}, "are 70000 and at most 65535 fit"),
        ({"input": 7}, "give bytes, a path, or a file"),
    ],
)
def test_wrong_use_is_told_before_anything_is_announced(
    worker: Application, keywords: dict[str, Any], said: str
) -> None:
    with Client(worker.public) as client, pytest.raises(UsageError, match=said):
        client.run(**keywords)


def test_files_that_cannot_be_read_are_told_before_anything_is_announced(worker: Application, tmp_path: Path) -> None:
    with Client(worker.public) as client:
        for keywords in ({"input": tmp_path / "none"}, {"files": {"a": tmp_path / "none"}}):
            with pytest.raises(LocalError, match=r"cannot read .*/none: no such file"):
                client.run(**keywords)
        with pytest.raises(LocalError, match="it is no regular file"):
            client.run(Path("/dev/null"))
        with pytest.raises(LocalError, match="cannot write"):
            client.run(fetch={"a": tmp_path / "none" / "a"})
        with pytest.raises(UsageError, match="it is not a regular file"), (tmp_path / "there").open("wb+") as file:
            client.run(file, fetch={"b": tmp_path / "b", "a": tmp_path})
        with pytest.raises(TypeError, match="'tiemout' is no keyword of a job"):
            client.run(tiemout=3)  # type: ignore[call-overload]
        with pytest.raises(TypeError, match="'check' is no keyword of a job"):
            client.start(check=True)  # type: ignore[call-arg]


def test_no_worker_is_trusted_while_the_list_of_revoked_ones_is_damaged(tmp_path: Path) -> None:
    application = Application(tmp_path)
    service = Service(application, SHELL, ALLOW)
    try:
        Path(f"{application.secret}.revoked").write_text("damaged\n")
        with Client(application.public, accept_timeout=4.0) as client, pytest.raises(NoWorkerError) as caught:
            client.run(args=["true"])
        told = application.run(environment={"CEXEC_TIMEOUT_ACCEPT": "4"}).stderr.decode()
        assert "is trusted" in str(caught.value) and str(caught.value) in told
    finally:
        service.close()


def test_a_key_that_is_none(tmp_path: Path, worker: Application) -> None:
    with pytest.raises(KeyFileError, match=r"neither .*/app nor .*/app.pub exists; .*ckeygen"):
        Client(tmp_path / "app")
    (tmp_path / "text").write_text("not a key\n")
    with pytest.raises(KeyFileError, match="text"):
        AsyncClient(tmp_path / "text")
    alone = tmp_path / "alone"
    alone.write_bytes(worker.secret.read_bytes())
    alone.chmod(0o600)
    with pytest.raises(KeyFileError, match=r"needs the client key that ckeygen wrote beside it \(APP.pub\)"):
        Client(alone)
    with Client(worker.public.with_suffix("")) as client:  # as the commands take it
        assert client.run(args=["echo"]).returncode == 0


def test_settings_that_are_wrong(worker: Application, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(GroupError, match="bad group entry 'no group!'"):
        Client(worker.public, group="no group!")
    with pytest.raises(UsageError, match="accept_timeout is -1"):
        Client(worker.public, accept_timeout=-1)
    with pytest.raises(UsageError, match="weight"):
        Client(worker.public, weight=100_000)
    monkeypatch.setenv("CEXEC_TIMEOUT_ACCEPT", "x")
    with pytest.raises(UsageError, match="CEXEC_TIMEOUT_ACCEPT"):
        Client(worker.public)


def test_a_python_without_a_cluster_can_import_everything() -> None:
    code = "import cexec; print([getattr(cexec, name).__name__ for name in cexec.PUBLIC])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert "'Client'" in result.stdout, result.stderr
