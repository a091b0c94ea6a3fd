"""Commands in a locale that is not UTF-8: words are passed on as they were written, and printing never fails."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.cluster import DEADLINE, Cluster
from tests.conftest import StartService
from tests.environment import command, local_environment
from tests.needs import require_tool, skip_for_want_of
from tests.service import Application

LATIN = "café\n".encode("latin-1")


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with German in Latin-1."""
    require_tool("localedef")
    directory = tmp_path_factory.mktemp("locales")
    argv = ["localedef", "-i", "de_DE", "-f", "ISO-8859-1", str(directory / "de_DE")]
    subprocess.run(argv, capture_output=True)  # it may complain and make it all the same
    if not (directory / "de_DE" / "LC_CTYPE").exists():
        skip_for_want_of("the sources of locales")
    return directory


@pytest.fixture(params=["de_DE", "C", "ascii", "C.UTF-8"])
def environment(request: pytest.FixtureRequest, places: Path) -> Mapping[str, str]:
    """`ascii`: C, where Python is kept from taking UTF-8 all the same."""
    changes = {"LOCPATH": str(places), "LC_ALL": "C" if request.param == "ascii" else request.param}
    if request.param == "ascii":
        changes |= {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    return local_environment(changes)


def test_words_of_cmap_are_passed_on_byte_by_byte(
    tmp_path: Path, environment: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: in Latin-1 caf\\351 became caf\\303\\251, and a file called \u20ac could not be made."""
    cluster = Cluster(tmp_path)
    monkeypatch.chdir(tmp_path)
    Path("p.jsonl").write_text('{"name": "\\u20ac", "number": 3.10}\n')
    Path("list").write_bytes(LATIN + "né €\n".encode())

    def run(*words: str | bytes) -> bytes:
        argv = [*map(os.fsencode, cluster.argv("-k")), *map(os.fsencode, words)]
        ended = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, env=environment, timeout=DEADLINE)
        assert (ended.returncode, ended.stderr) == (0, b"")
        return ended.stdout

    try:
        tell = "RUN=printf '%s;' \"$@\""
        assert run("--peer", tell, "--", "{}", ":::", b"caf\xe9", "né") == b"caf\xe9;" + "né;".encode()
        assert run("-a", "list", "--peer", tell, "--", "{}") == b"caf\xe9;" + "né €;".encode()
        assert run("--params", "p.jsonl", "--stdout", "{name}.out", "--stdin-text", "{name}{number}") == b""
        assert Path(b"\xe2\x82\xac.out".decode()).read_bytes() == "€3.10".encode()
        assert run("--stdout", b"\xe9{}", "--stdin-text", "x", ":::", b"\xe9") == b""
        assert b"\xe9\xe9" in os.listdir(b".")
    finally:
        cluster.service.close()


def test_a_table_is_printed_in_every_locale(
    application: Application, service: StartService, environment: Mapping[str, str]
) -> None:
    """Regression: cps ended with a traceback where a label had letters that the locale has not."""
    service("cat", options=["--label", "place=Köln-\u20ac"])
    argv = command("cps", application.public)
    ended = subprocess.run(argv, capture_output=True, env=dict(environment), timeout=DEADLINE)
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert b"place=K" in ended.stdout
