"""What an installation puts where, and what the source archive has.

Start-up time is the product: compiled modules, and launchers of our own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

import bundle_start
import cexec
import install_launchers
from tests.environment import ROOT
from tests.needs import require_tool, skip_for_want_of
from tests.network.test_pythons import VERSIONS

COMMANDS = sorted(path.name for path in (ROOT / "bin").iterdir())
MADE_HERE = shutil.ignore_patterns(
    ".git", ".venv*", "*.egg-info", "__pycache__", "build", "dist", ".*_cache", ".hypothesis", "shared"
)
SAMPLE = ["tests/system/test_units.py", "tests/test_readme.py", "tests/test_wall_clock.py"]
SOURCES = ("LICENSE", "README.md", "bin", "bundle_start.py", "cexec", "man", "pyproject.toml")


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
    assert {f"cexec/{name}.py" for name in bundle_start.BUNDLES} <= names
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
    assert f"from cexec.commands.{name.replace('-', '_')} import main" in lines


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source tree that somebody finds who unpacks the source archive."""
    directory = tmp_path_factory.mktemp("archive")
    shutil.copytree(ROOT, directory / "checkout", ignore=MADE_HERE)
    build = "import setuptools.build_meta as backend, sys; backend.build_sdist(sys.argv[1])"
    argv = [sys.executable, "-c", build, os.fspath(directory)]
    built = subprocess.run(argv, cwd=directory / "checkout", capture_output=True, text=True, timeout=100)
    assert built.returncode == 0, built.stderr
    (packed,) = directory.glob("*.tar.gz")
    assert packed.name == f"cexec_cluster-{cexec.__version__}.tar.gz"
    with tarfile.open(packed) as tar:
        tar.extractall(directory / "unpacked", filter="data")
    (tree,) = (directory / "unpacked").iterdir()
    return tree


def _files(tree: Path) -> set[str]:
    return {path.relative_to(tree).as_posix() for path in tree.rglob("*") if path.is_file() or path.is_symlink()}


def test_the_source_archive_has_every_file_of_the_checkout(archive: Path) -> None:
    """Regression: it had no documents, examples, Makefile and changelog, and its tests could not be collected."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True) if _git() else None
    if listed is None or listed.returncode:
        skip_for_want_of("a checkout with git")
    wanted = {name for name in listed.stdout.splitlines() if (ROOT / name).exists()}
    assert len(wanted) > 500
    assert wanted - _files(archive) == set()
    own = {name for name in _files(archive) if not name.startswith("cexec_cluster.egg-info/")}
    assert own - wanted <= {"PKG-INFO", "setup.cfg"} | _new_files()


def _git() -> str | None:
    return shutil.which("git")


def _new_files() -> set[str]:
    """What a developer has not added yet."""
    argv = ["git", "ls-files", "--others", "--exclude-standard"]
    return set(subprocess.run(argv, cwd=ROOT, capture_output=True, text=True).stdout.splitlines())


def test_modes_survive_in_the_source_archive(archive: Path) -> None:
    for name in ("tests/isolated.sh", "tests/run.sh", "examples/demo.sh", *(f"bin/{name}" for name in COMMANDS)):
        assert os.access(archive / name, os.X_OK), name


def test_tests_of_the_source_archive_run_there(archive: Path) -> None:
    ended = _pytest(archive, *SAMPLE)
    assert ended.returncode == 0, ended.stdout


@pytest.mark.campaign
@pytest.mark.timeout(1200)
def test_all_tests_of_the_source_archive_are_collected(archive: Path) -> None:
    ended = _pytest(archive, "--collect-only")
    assert ended.returncode == 0, ended.stdout
    found = {line.partition("::")[0] for line in ended.stdout.splitlines() if "::" in line}
    left = {
        f"tests/{name}" for name in _files(ROOT / "tests") if name.endswith(".py") and "/test_" in f"/{name}"
    } - found
    assert not [name for name in left if "mark.campaign" not in (ROOT / name).read_text()]


def _pytest(tree: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Runs the tests of a tree of its own, where no module of this one is in the way."""
    options = ["-q", "-n0", "-p", "no:cacheprovider"]
    if "--collect-only" not in words:
        options += ["-p", "no:schemathesis"]  # takes as long to load as all else, and SAMPLE has no use for it
    argv = [sys.executable, "-m", "pytest", *options, *words]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(argv, cwd=tree, env=environment, capture_output=True, text=True, timeout=1000)


def test_the_classifiers_name_the_versions_that_are_tested() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = [one.rpartition(" ")[2] for one in project["classifiers"] if "Python :: 3." in one]
    assert named == list(VERSIONS)
    assert project["requires-python"] == f">={VERSIONS[0]}"
    assert f"PYTHONS-{' '.join(VERSIONS)}}}" in (ROOT / "tests" / "pythons.sh").read_text()
    assert project["urls"]


def test_the_versions_that_are_absent_are_said_loudly(tmp_path: Path) -> None:
    (tmp_path / "tests").mkdir()
    script = shutil.copy(ROOT / "tests" / "pythons.sh", tmp_path / "tests")
    environment = {**os.environ, "PYTHONS": "3.98 3.99"}
    ended = subprocess.run([script], env=environment, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1
    assert ended.stdout.splitlines()[-3:] == [
        "pythons: tested: none",
        "pythons: ABSENT: Python 3.98 is not here (PATH, pyenv, uv): NOT TESTED with it",
        "pythons: ABSENT: Python 3.99 is not here (PATH, pyenv, uv): NOT TESTED with it",
    ]


@pytest.mark.parametrize("target", ["install", "uninstall"])
@pytest.mark.parametrize("prefix", ["", "usr", "./usr", "~/usr", "/a directory"])
def test_make_refuses_a_prefix_that_is_not_absolute(target: str, prefix: str, tmp_path: Path) -> None:
    """Regression: its links and first lines of scripts led to another place from each directory."""
    require_tool("make")
    argv = [
        "make",
        "-f",
        os.fspath(ROOT / "Makefile"),
        target,
        f"PREFIX={prefix}",
        f"DESTDIR={tmp_path}/",
        "PYTHON=false",
    ]
    ended = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 2
    wanted = f"make: PREFIX is '{prefix}', but must be an absolute path without spaces, such as /usr/local"
    assert ended.stderr.splitlines()[0] == wanted
    assert list(tmp_path.iterdir()) == []


def test_make_install_gives_the_launchers_their_first_lines() -> None:
    said = subprocess.run(
        ["make", "-n", "install", "PREFIX=/prefix", "DESTDIR=/tmp/packed"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    names = " ".join(COMMANDS)
    assert f"python3 install_launchers.py '/prefix/lib/cexec-cluster' '/tmp/packed' {names}\n" in said


@pytest.mark.parametrize("packed", [False, True])
def test_the_first_lines_of_an_installation(packed: bool, tmp_path: Path) -> None:
    destination = str(tmp_path / "packed") if packed else ""
    home = "/usr/lib/cexec-cluster" if packed else str(tmp_path / "home")
    place = Path(f"{destination}{home}")
    (place / "lib" / "python3.12" / "site-packages").mkdir(parents=True)
    (place / "bin").mkdir()
    for name in COMMANDS:
        (place / "bin" / name).write_text("#!/made/by/pip\nimport _signal\nimport cexec\nlast\n")
        (place / "bin" / name).chmod(0o755)
    install_launchers.rewrite(home, COMMANDS, destination)
    for name in COMMANDS:
        first, *rest = (place / "bin" / name).read_text().splitlines()
        assert os.access(place / "bin" / name, os.X_OK)
        if name in ("cexec", "cexec-ssh"):
            assert first == f"#!{home}/bin/python -IS"
            inserted = f"sys.path.insert(0, '{home}/lib/python3.12/site-packages')"
            moved = "sys.path.append(sys.path.pop(0))"
            assert rest == ["import sys", "", inserted, "", "import _signal", "import cexec", "", moved, "last"]
        else:
            assert (first, rest) == (f"#!{home}/bin/python -I", ["import _signal", "import cexec", "last"])


def test_a_script_that_is_no_launcher_of_ours_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "lib" / "python3.12" / "site-packages").mkdir(parents=True)
    (tmp_path / "bin").mkdir()
    script = tmp_path / "bin" / "cexec"
    script.write_text("#!/made/by/pip\nimport sys\nimport cexec  # another one\n")
    with pytest.raises(ValueError, match="bin/cexec is no launcher of ours"):
        install_launchers.rewrite(str(tmp_path), ["cexec"])
    assert script.read_text().startswith("#!/made/by/pip\n")


@pytest.mark.parametrize("name", install_launchers.OFTEN)
@pytest.mark.parametrize("words", [["--version"], ["--need", "gpu", "--version"], ["--help"]])
def test_a_command_needs_nothing_that_site_would_bring(name: str, words: list[str], prefix: Path) -> None:
    """A plain call does what it does with `site`, and so does one that loads click."""
    argv = [sys.executable, str(prefix / "bin" / name), *words]
    wanted = subprocess.run(argv, capture_output=True, text=True)
    code = f"import sys; sys.path[:0] = {sys.path!r}; sys.argv[:] = {argv[1:]!r}; exec(open({argv[1]!r}).read())"
    found = subprocess.run([sys.executable, "-IS", "-c", code], capture_output=True, text=True)
    assert (found.returncode, found.stdout, found.stderr) == (wanted.returncode, wanted.stdout, wanted.stderr)


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
