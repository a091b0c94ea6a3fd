"""A wheel has the modules of a plain call of `cexec` in one file more: bundle_start.py makes it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from types import CodeType, ModuleType

import pytest

import bundle_start
from tests.conftest import StartService
from tests.environment import ROOT
from tests.service import Application
from tests.test_startup_imports import loaded_modules

NAMES = [f"cexec.{name}" for name in bundle_start.MODULES]
OF_CLASSES = {"__module__", "__qualname__", "__static_attributes__", "__firstlineno__"}  # what a class's body sets
SAMPLE = '''"""One

 text."""
A = """one
 two
"""
B = (
    1,
)


def f():
    return """
three"""
'''


def bodies(source: str) -> dict[str, CodeType]:
    """Returns the bodies of a bundle by the names of the modules."""
    (function,) = (
        one for one in compile(source, "bundle", "exec").co_consts if getattr(one, "co_name", "") == "bodies"
    )
    return {one.co_name.replace("__", "."): one for one in function.co_consts if isinstance(one, CodeType)}


def test_it_has_what_a_plain_call_loads_and_nothing_else(service: StartService, application: Application) -> None:
    service("true")
    argv, _ = application.client()
    loaded, result = loaded_modules(argv)
    assert result.returncode == 0, result.stderr.decode()
    assert {name for name in loaded if name.startswith("cexec.")} - {"cexec.start_bundle"} == set(NAMES)


def test_each_body_makes_what_its_module_has() -> None:
    found = bodies(bundle_start.bundle(ROOT))
    assert list(found) == NAMES
    for name, code in found.items():
        made, wanted = ModuleType(name), ModuleType(name)
        exec(code, made.__dict__)
        exec(compile(ROOT.joinpath(*name.split(".")).with_suffix(".py").read_text(), name, "exec"), wanted.__dict__)
        assert vars(made).keys() - OF_CLASSES == vars(wanted).keys() - {"annotations"} - OF_CLASSES, name
        assert made.__doc__ == wanted.__doc__


def test_texts_of_several_lines_stay_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cexec").mkdir()
    (tmp_path / "cexec" / "sample.py").write_text(SAMPLE)
    monkeypatch.setattr(bundle_start, "MODULES", ("sample",))
    (code,) = bodies(bundle_start.bundle(tmp_path)).values()
    made = ModuleType("sample")
    exec(code, made.__dict__)
    assert (made.__doc__, made.A, made.B, made.f()) == ("One\n\n text.", "one\n two\n", (1,), "\nthree")


def test_a_call_loads_its_modules_from_the_bundle(
    service: StartService, application: Application, tmp_path: Path
) -> None:
    service("cat")
    copy = tmp_path / "installed"
    for name in ("cexec", "bin"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    (copy / "cexec" / "start_bundle.py").write_text(bundle_start.bundle(ROOT))
    for name in NAMES:
        copy.joinpath(*name.split(".")).with_suffix(".py").unlink()
    argv = [sys.executable, str(copy / "bin" / "cexec"), str(application.public)]
    environment = {**application.client()[1], "PYTHONPATH": str(copy)}
    result = subprocess.run(argv, input=b"hello", env=environment, capture_output=True, timeout=30)
    assert (result.returncode, result.stdout) == (0, b"hello"), result.stderr.decode()
