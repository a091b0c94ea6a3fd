"""What an installation puts where.  Start-up time is the product: compiled modules, and launchers of our own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import cexec
from tests.environment import ROOT

COMMANDS = sorted(path.name for path in (ROOT / "bin").iterdir())
SOURCES = ("LICENSE", "README.md", "bin", "cexec", "man", "pyproject.toml")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, because setuptools leaves a directory where it would find deleted modules the next time."""
    directory = tmp_path_factory.mktemp("source")
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, directory / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, directory / name)
    pip("wheel", "--no-build-isolation", "--no-deps", "--wheel-dir", str(directory / "dist"), str(directory))
    (built,) = (directory / "dist").iterdir()
    return built


@pytest.fixture(scope="module")
def prefix(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel without its dependencies, installed into a directory."""
    directory = tmp_path_factory.mktemp("prefix")
    pip("install", "--ignore-installed", "--no-deps", "--no-index", "--prefix", str(directory), str(wheel))
    return directory


def pip(*arguments: str) -> None:
    argv = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    result = subprocess.run(argv, capture_output=True, text=True, timeout=100)
    assert result.returncode == 0, result.stderr


def test_the_wheel_is_named_after_the_version_in_the_package(wheel: Path) -> None:
    assert wheel.name == f"cexec_cluster-{cexec.__version__}-py3-none-any.whl"


def test_the_wheel_has_every_module_and_man_page(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "cexec").rglob("*.py")}
    assert "cexec/errors.py" in modules and modules <= names
    pages = {path.name for path in (ROOT / "man").glob("*.1")}
    assert pages and pages <= {Path(name).name for name in names if "/share/man/man1/" in name}


def test_modules_are_compiled_when_installed(prefix: Path) -> None:
    (package,) = prefix.glob("**/site-packages/cexec")
    modules = list(package.rglob("*.py"))
    assert modules
    tag = sys.implementation.cache_tag
    missing = [path for path in modules if not (path.parent / "__pycache__" / f"{path.stem}.{tag}.pyc").exists()]
    assert not missing


@pytest.mark.parametrize("name", COMMANDS)
def test_a_launcher_is_ours_and_runs_with_the_python_that_it_was_installed_by(prefix: Path, name: str) -> None:
    launcher = prefix / "bin" / name
    assert os.access(launcher, os.X_OK)
    shebang, *lines = launcher.read_text().splitlines()
    assert shebang == f"#!{sys.executable}"
    assert lines == (ROOT / "bin" / name).read_text().splitlines()[1:]
    assert f"from cexec.commands.{name} import main" in lines


def test_make_install_makes_launchers_that_ignore_the_variables_of_python() -> None:
    said = subprocess.run(
        ["make", "-n", "install", "PREFIX=/prefix"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert "#!/prefix/lib/cexec-cluster/bin/python -I" in said


@pytest.mark.parametrize("name", COMMANDS)
def test_with_that_first_line_a_command_finds_its_own_modules(name: str, tmp_path: Path) -> None:
    for module in ("click", "cexec", "json"):
        (tmp_path / f"{module}.py").write_text("raise SystemExit('of somebody else')")
    environment = {**os.environ, "PYTHONHOME": "/nowhere", "PYTHONPATH": str(tmp_path)}
    argv = [sys.executable, "-I", str(ROOT / "bin" / name), "--version"]
    result = subprocess.run(argv, env=environment, capture_output=True, text=True)
    assert result.stdout == f"{name} {cexec.__version__}\n", result.stderr


def test_a_directory_as_standard_input_is_refused_with_a_word(tmp_path: Path) -> None:
    """By Python, before we begin; man/cexec.1 says so."""
    directory = os.open(tmp_path, os.O_RDONLY)
    argv = [sys.executable, str(ROOT / "bin" / "cexec"), "app.pub"]
    result = subprocess.run(argv, stdin=directory, capture_output=True, text=True)
    os.close(directory)
    assert result.returncode == 1 and "<stdin> is a directory, cannot continue" in result.stderr
