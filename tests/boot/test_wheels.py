"""The wheels that a host needs, and where this machine has them."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import cexec
from cexec.boot import index, own_wheels, wheels
from cexec.boot.failures import WHEEL, HostError
from cexec.boot.own_wheels import repacked, wheel_of_cexec
from cexec.boot.target import WheelTarget
from cexec.boot.wheels import Wheels, best, requirements_of
from cexec.errors import LocalError, UsageError
from tests.boot.test_target import facts
from tests.boot.wheelhouse import make_wheel
from tests.ssh_hosts import facts_of_this_python

OTHER = WheelTarget.of(facts(version=(3, 12, 0), machine="armv7l", bits=32))  # nothing that is installed here fits


@pytest.fixture
def places(tmp_path: Path) -> tuple[Path, Path, Path]:
    """The directories scratch, cache and given."""
    found = tmp_path / "scratch", tmp_path / "cache", tmp_path / "given"
    for path in found:
        path.mkdir()
    return found


@pytest.fixture
def needs(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What cexec requires, in place of what it really does."""
    required: list[str] = []
    monkeypatch.setattr(wheels, "requirements_of_cexec", lambda: list(required))
    yield required


def names(bundle: wheels.Bundle) -> list[str]:
    return [wheel.name for wheel in bundle.wheels[1:]]


def test_a_host_like_this_machine_needs_no_index(
    places: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch, cache, _ = places
    monkeypatch.setattr(wheels, "download", lambda *_: pytest.fail("the index was asked"))
    mine = facts_of_this_python()
    bundle = Wheels(scratch, cache=cache).gather(WheelTarget.of(mine))
    found = {name.partition("-")[0] for name in names(bundle)}
    assert {"click", "psutil", "pynacl", "zeroconf", "cffi", "ifaddr", "packaging"} <= found
    assert bundle.wheels[0].name == f"cexec_cluster-{cexec.__version__}-py3-none-any.whl"
    assert bundle.unpacked > bundle.size > 1_000_000
    again = Wheels(scratch, cache=cache).gather(WheelTarget.of(mine))
    assert again.release == bundle.release and bundle.release.startswith(f"{cexec.__version__}-")


def test_requirements_are_followed_through_the_wheels(places: tuple[Path, Path, Path], needs: list[str]) -> None:
    scratch, cache, given = places
    needs += ["alpha>=2", 'beta; python_version < "3.12"', 'gamma; extra == "x"']
    make_wheel(given, "alpha", "1.0")
    make_wheel(given, "alpha", "2.5", requires=["delta", 'epsilon; sys_platform == "win32"'])
    make_wheel(given, "delta", requires=["alpha"])
    bundle = Wheels(scratch, given, cache).gather(OTHER)
    assert names(bundle) == ["alpha-2.5-py3-none-any.whl", "delta-1.0-py3-none-any.whl"]
    assert sorted(path.name for path in cache.iterdir()) == names(bundle)  # the next run finds them there


def test_other_packages_go_along(places: tuple[Path, Path, Path], needs: list[str]) -> None:
    scratch, cache, given = places
    needs += ["alpha"]
    make_wheel(given, "alpha")
    make_wheel(given, "beta", "2.0", requires=["gamma"])
    make_wheel(given, "gamma")
    found = Wheels(scratch, given, cache)
    plain, more = found.gather(OTHER), found.gather(OTHER, ["beta>=2"])
    assert len(plain.wheels) == 2 and len(more.wheels) == 4 and plain.release != more.release


def test_the_wheel_with_the_best_tag_of_the_latest_version_is_taken(tmp_path: Path) -> None:
    target = WheelTarget.of(facts())
    for tag in ("py3-none-any", "cp311-cp311-manylinux_2_17_x86_64", "cp311-cp311-manylinux_2_99_x86_64",
                "cp38-abi3-manylinux_2_17_x86_64", "cp311-cp311-win_amd64"):  # fmt: skip
        make_wheel(tmp_path, "one", "1.0", tag)
    (tmp_path / "nonsense.whl").write_text("")
    found = best(tmp_path, Requirement("One"), target)
    assert found is not None and found.name == "one-1.0-cp311-cp311-manylinux_2_17_x86_64.whl"
    make_wheel(tmp_path, "one", "1.1")
    found = best(tmp_path, Requirement("one"), target)
    assert found is not None and found.name == "one-1.1-py3-none-any.whl"
    assert best(tmp_path, Requirement("one>2"), target) is None
    (tmp_path / "one-3-py3-none-any.whl").write_text("cut off")
    assert best(tmp_path, Requirement("one>2"), target) is None


def test_a_wheel_that_is_missing_is_named_with_what_to_do(places: tuple[Path, Path, Path], needs: list[str]) -> None:
    scratch, cache, given = places
    needs += ["alpha", "beta>=2", "gamma"]
    make_wheel(given, "alpha", tag="cp312-cp312-manylinux_2_17_x86_64")
    make_wheel(given, "gamma")
    with pytest.raises(HostError) as caught:
        Wheels(scratch, given, cache).gather(OTHER)
    assert caught.value.failure.kind == WHEEL and not caught.value.failure.temporary
    text = caught.value.failure.text
    assert text.startswith("no wheel of alpha, beta>=2 for Python 3.12 on armv7l (glibc 2.36)")
    assert "python3 -m pip wheel 'alpha' 'beta>=2'" in text and "--wheels DIR" in text and "gamma" not in text


def test_what_is_missing_is_fetched_from_the_index(
    places: tuple[Path, Path, Path], needs: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """pip itself, with a directory as its index."""
    if importlib.util.find_spec("pip") is None:
        pytest.skip("this Python has no pip")
    scratch, cache, _ = places
    shop = tmp_path / "index"
    shop.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(shop))
    make_wheel(shop, "alpha", tag="cp312-cp312-manylinux_2_17_armv7l", requires=["beta"])
    make_wheel(shop, "alpha", tag="cp312-cp312-manylinux_2_17_x86_64", version="2.0")
    make_wheel(shop, "beta")
    needs += ["alpha"]
    assert names(Wheels(scratch, cache=cache).gather(OTHER)) == [
        "alpha-1.0-cp312-cp312-manylinux_2_17_armv7l.whl",
        "beta-1.0-py3-none-any.whl",
    ]
    needs += ["absent"]
    with pytest.raises(HostError, match=r"no wheel of absent for .*: the package index has none"):
        Wheels(scratch, cache=cache).gather(OTHER)


def test_without_any_pip_this_is_said(
    places: tuple[Path, Path, Path], needs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch, cache, _ = places
    monkeypatch.setattr(index, "find_pip", lambda directory: None)
    needs += ["alpha"]
    with pytest.raises(HostError, match="there is no pip here that could ask the index"):
        Wheels(scratch, cache=cache).gather(OTHER)


def test_pip_is_looked_for_in_three_places(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tried: list[Sequence[str]] = []

    def ended(argv: list[str]) -> subprocess.CompletedProcess[str]:
        tried.append(argv)
        return subprocess.CompletedProcess(argv, 0 if argv[1:3] == ["-m", "venv"] else 1, "", "")

    monkeypatch.setattr(index, "outcome_of", ended)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    assert index.find_pip(tmp_path) == [f"{tmp_path}/pip/bin/python", "-m", "pip"]
    assert [words[0] for words in tried] == [sys.executable, "/usr/bin/pip3", "/usr/bin/pip", sys.executable]


def test_the_wheel_of_cexec_has_the_package_and_is_always_the_same(tmp_path: Path) -> None:
    first = wheel_of_cexec(tmp_path)
    data = first.read_bytes()
    assert wheel_of_cexec(tmp_path).read_bytes() == data
    members = zipfile.ZipFile(first).namelist()
    assert {"cexec/__init__.py", "cexec/commands/cservice.py", "cexec/cmap/watch/report.html"} <= set(members)
    assert not [name for name in members if "__pycache__" in name or name.endswith(".pyc")]


def test_a_package_is_repacked_with_all_its_files(tmp_path: Path) -> None:
    made = repacked("click", tmp_path)
    assert made is not None and made.name.startswith("click-") and made.name.endswith("-py3-none-any.whl")
    members = set(zipfile.ZipFile(made).namelist())
    assert {"click/__init__.py", "click/core.py"} <= members
    assert [one.name for one in requirements_of(made)] in ([], ["colorama"])
    compiled = repacked("psutil", tmp_path)
    assert compiled is not None and [name for name in zipfile.ZipFile(compiled).namelist() if name.endswith(".so")]


@pytest.mark.parametrize("name", ["cexec-cluster", "no-such-package"])
def test_what_did_not_come_from_a_wheel_is_not_repacked(name: str, tmp_path: Path) -> None:
    """cexec is an editable installation here."""
    assert repacked(name, tmp_path) is None


def test_what_was_compiled_here_is_not_carried_to_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Fake:
        def read_text(self, name: str) -> str:
            return "Wheel-Version: 1.0\nTag: cp311-cp311-linux_x86_64\n"

        files = ()

    monkeypatch.setattr(own_wheels, "distribution", lambda name: Fake())
    assert repacked("something", tmp_path) is None


def test_a_directory_without_wheels_is_refused(places: tuple[Path, Path, Path]) -> None:
    scratch, cache, given = places
    with pytest.raises(UsageError, match="there is no wheel"):
        Wheels(scratch, given, cache)


def test_a_damaged_wheel_is_named(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "one-1-py3-none-any.whl", "w") as archive:
        archive.writestr("one.py", "")
    with pytest.raises(LocalError, match=r"one-1-py3-none-any.whl is damaged"):
        requirements_of(tmp_path / "one-1-py3-none-any.whl")
