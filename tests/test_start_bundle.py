"""A wheel has the modules of a plain call of `cexec` in four files more: bundle_start.py makes them."""

from __future__ import annotations

import ast
import compileall
import inspect
import os
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path
from types import CodeType, ModuleType

import pytest

import bundle_start
import install_launchers
from cexec.protocol.decisions.race import RENEW_AFTER
from tests.conftest import StartService
from tests.environment import ROOT
from tests.service import Application
from tests.shell_host import ShellHost
from tests.test_startup_imports import imports_of_a_quick_call, quickly_loaded
from tests.waiting import PATIENCE, all_asleep, wait_until

NAMES = [f"cexec.{name}" for names in bundle_start.BUNDLES.values() for name in names]
OF_SSH = {f"cexec.{name}" for name in bundle_start.BUNDLES[bundle_start.SSH]}
BUNDLES = {f"cexec.{name}" for name in bundle_start.BUNDLES}
OF_READERS = {"__annotations__", "__doc__", "__static_attributes__", "__firstlineno__"}
SAMPLE = '''"""One

 text."""
from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from nowhere import Value

A = """one
 two
"""
B: Value = (
    1,
)
C: Value


class D:
    """Only a docstring."""


class E(D):
    """One, and a method."""

    size: int = 3

    def g(self, first: Value, *rest: Value, last: Value = 2, **more: Value) -> Value:
        """Returns them."""
        found: Value = (first, rest, last, more)
        return found


def f(x: Value) -> Value:
    return """
three"""
'''


def bodies(source: str) -> dict[str, CodeType]:
    """Returns the bodies of a bundle by the names of the modules."""
    (function,) = (one for one in compile(source, "bundle", "exec").co_consts if getattr(one, "co_name", "") == "b")
    return {one.co_name.replace("__", "."): one for one in function.co_consts if isinstance(one, CodeType)}


def test_it_has_what_a_plain_call_loads_and_nothing_else(service: StartService, application: Application) -> None:
    service("true")
    argv, _ = application.client()
    loaded, result = quickly_loaded(argv)
    assert result.returncode == 0, result.stderr.decode()
    assert {name for name in loaded if name.startswith("cexec.")} - BUNDLES == set(NAMES) - OF_SSH


def test_each_body_makes_what_its_module_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cexec.start_bundle", ModuleType("cexec.start_bundle"))
    monkeypatch.setattr(sys.modules["cexec.start_bundle"], "os", os, raising=False)
    found = {name: code for source in bundle_start.bundles(ROOT).values() for name, code in bodies(source).items()}
    assert found.keys() == set(NAMES)
    for name, code in found.items():
        made, wanted = ModuleType(name), ModuleType(name)
        exec(code, made.__dict__)
        exec(compile(ROOT.joinpath(*name.split(".")).with_suffix(".py").read_text(), name, "exec"), wanted.__dict__)
        assert _outline(made) - {"__module__", "__qualname__"} == _outline(wanted) - {"annotations"}, name


def _outline(module: ModuleType) -> set[str]:
    """Returns all names of a module and of its classes, each function with its parameters."""
    found = set()
    for name, value in vars(module).items():
        found.add(name)
        if isinstance(value, type) and value.__module__ == module.__name__:
            found |= {_described(f"{value.__qualname__}.{part}", one) for part, one in vars(value).items()}
        elif inspect.isfunction(value) and value.__module__ == module.__name__:
            found.add(_described(value.__qualname__, value))
    return {name for name in found if name.rpartition(".")[2] not in OF_READERS}


def _described(name: str, value: object) -> str:
    if not inspect.isfunction(value):
        return name
    code = value.__code__
    return (
        f"{value.__qualname__} {code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]} {value.__defaults__!r}"
    )


def test_only_what_readers_and_type_checkers_want_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cexec").mkdir()
    (tmp_path / "cexec" / "sample.py").write_text(SAMPLE)
    monkeypatch.setattr(bundle_start, "BUNDLES", {"start_bundle": ("sample",)})
    (code,) = bodies(bundle_start.bundles(tmp_path)["start_bundle"]).values()
    made = ModuleType("sample")
    exec(code, made.__dict__)
    assert (made.A, made.B, made.f(0), made.E.size) == ("one\n two\n", (1,), "\nthree", 3)
    assert made.E().g(1, 5, last=6, x=7) == (1, (5,), 6, {"x": 7})
    assert (made.D.__qualname__, made.E.g.__qualname__, made.f.__qualname__) == ("D", "E.g", "f")
    assert (made.__doc__, made.D.__doc__, made.E.g.__doc__) == (None, None, None)
    assert made.f.__annotations__ == made.E.g.__annotations__ == {}
    assert not {"__annotations__", "annotations", "C", "Value"} & vars(made).keys()


@pytest.mark.parametrize("head", ["@dataclass\nclass Value:", "class Value(NamedTuple):", "class Value(TypedDict):"])
def test_a_class_that_wants_its_annotations_is_refused(head: str) -> None:
    with pytest.raises(ValueError, match="Value may want its annotations"):
        bundle_start.Lightened().visit(ast.parse(f"{head}\n    size: int\n"))


def test_modules_come_after_those_that_they_import() -> None:
    sources = {
        "cexec.a": "from cexec.b import one\nfrom cexec import c\n",
        "cexec.b": "from cexec.d import two\n",
        "cexec.c": "def f():\n    from cexec.a import later\n",
        "cexec.d": "import os\n",
    }
    modules = {name: ast.parse(source) for name, source in sources.items()}
    assert bundle_start.in_order(modules) == ["cexec.d", "cexec.b", "cexec.c", "cexec.a"]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """An installation as `make install` leaves it, without the files of the modules that are in the bundles."""
    packages = tmp_path / sysconfig.get_path("purelib", vars={"base": "home"})
    shutil.copytree(ROOT / "cexec", packages / "cexec", ignore=shutil.ignore_patterns("__pycache__"))
    for name, source in bundle_start.bundles(ROOT).items():
        (packages / "cexec" / f"{name}.py").write_text(source)
    for name in NAMES:
        packages.joinpath(*name.split(".")).with_suffix(".py").unlink()
    for path in Path(sysconfig.get_path("platlib")).glob("*"):
        if path.name == "nacl" or path.name.startswith("_cffi_backend"):
            (packages / path.name).symlink_to(path)
    (tmp_path / "home" / "bin").mkdir()
    (tmp_path / "home" / "bin" / "python").symlink_to(sys.executable)
    for name in install_launchers.OFTEN:
        shutil.copy(ROOT / "bin" / name, tmp_path / "home" / "bin")
    return tmp_path / "home"


def as_pip_leaves_it(home: Path) -> list[str]:
    return [sys.executable, str(home / "bin" / "cexec")]


def as_make_install_leaves_it(home: Path) -> list[str]:
    install_launchers.rewrite(str(home), install_launchers.OFTEN)
    return [str(home / "bin" / "cexec")]


@pytest.mark.parametrize("install", [as_pip_leaves_it, as_make_install_leaves_it])
def test_a_call_loads_its_modules_from_the_bundles(
    install: Callable[[Path], list[str]], service: StartService, application: Application, home: Path
) -> None:
    service("cat")
    argv = [*install(home), str(application.public)]
    (packages,) = home.glob("lib/python3.*/site-packages")
    environment = {**application.client()[1], "PYTHONPATH": str(packages)}
    result = subprocess.run(argv, input=b"hello", env=environment, capture_output=True, timeout=30)
    assert (result.returncode, result.stdout) == (0, b"hello"), result.stderr.decode()


@pytest.mark.parametrize("seconds", [0.0, RENEW_AFTER + 2.0], ids=["soon", "later"])
def test_a_client_that_waits_needs_no_more_of_its_package(
    service: StartService, application: Application, home: Path, tmp_path: Path, seconds: float
) -> None:
    """Regression: a client that waited while the package was replaced failed when its turn came.

    Later: and a little later also when it told that it waits, and when it announced its job anew.
    """
    (packages,) = home.glob("lib/python3.*/site-packages")
    environment = {**application.client()[1], "PYTHONPATH": str(packages), "PYTHONPROFILEIMPORTTIME": "1"}
    argv = [*as_pip_leaves_it(home), "-n", str(application.public)]
    told = tmp_path / "told"
    with told.open("wb") as file, subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE, stderr=file) as one:
        wait_until(lambda: "cexec.client.attempt.inputs" in told.read_text(), explain=told.read_text)
        wait_until(lambda: all_asleep(one.pid))  # and what it loads after that
        shutil.rmtree(packages / "cexec")
        time.sleep(seconds)
        service("echo", "hello")
        assert one.communicate(timeout=PATIENCE)[0] == b"hello\n", told.read_text()


def test_a_client_that_has_waited_in_vain_says_so_without_its_package(
    application: Application, home: Path, tmp_path: Path
) -> None:
    """Regression: a traceback."""
    (packages,) = home.glob("lib/python3.*/site-packages")
    changes = {"PYTHONPATH": str(packages), "PYTHONPROFILEIMPORTTIME": "1", "CEXEC_TIMEOUT_ACCEPT": "5"}
    argv = [*as_pip_leaves_it(home), "-n", str(application.public)]
    told = tmp_path / "told"
    with told.open("wb") as file, subprocess.Popen(argv, env=application.client()[1] | changes, stderr=file) as one:
        wait_until(lambda: "cexec.client.attempt.inputs" in told.read_text(), explain=told.read_text)
        wait_until(lambda: all_asleep(one.pid))
        shutil.rmtree(packages / "cexec")
        assert one.wait(PATIENCE) == 111, told.read_text()
    assert told.read_text().splitlines()[-1].startswith("cexec: no worker of "), told.read_text()


def ran(home: Path, script: str, *options: str) -> str:
    """Returns what a script prints in this installation.  Its bundles were not loaded yet."""
    (packages,) = home.glob("lib/python3.*/site-packages")
    head = f"import sys; sys.path.insert(0, {str(packages)!r})\n"
    done = subprocess.run([sys.executable, *options, "-c", head + script], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


WITHOUT_OS = "import cexec; cexec.prepare_start(sys.modules); from cexec.commands.cexec import main\n"


def test_a_call_that_make_install_has_installed_does_without_os(
    service: StartService, application: Application, home: Path, tmp_path: Path
) -> None:
    service("true")
    command = Path(*as_make_install_leaves_it(home))
    wanted = "_exit(cexec.flushed(main(), sys.stdout, sys.stderr))"
    assert wanted in command.read_text()
    loaded = tmp_path / "loaded"
    told = f"main(); open({str(loaded)!r}, 'w').write(str([m for m in ('os', 'stat', 'abc') if m in sys.modules]))"
    command.write_text(command.read_text().replace(wanted, told))
    environment = application.client()[1]
    argv = [str(command), str(application.public)]
    result = subprocess.run(argv, stdin=subprocess.DEVNULL, env=environment, capture_output=True, timeout=30)
    assert (result.returncode, result.stdout) == (0, b""), result.stderr.decode()
    assert loaded.read_text() == "['abc']"


def test_a_call_of_cexec_ssh_loads_its_modules_from_a_bundle_and_does_without_os(tmp_path: Path, home: Path) -> None:
    """Regression: its own modules were none of the bundles', and loaded `os`, for a millisecond."""
    host = ShellHost(tmp_path)
    try:
        as_make_install_leaves_it(home)
        command = home / "bin" / "cexec-ssh"
        wanted = "_exit(cexec.flushed(main(), sys.stdout, sys.stderr))"
        assert wanted in command.read_text()
        loaded = tmp_path / "loaded"
        told = f"status = main(); open({str(loaded)!r}, 'w').write(str('os' in sys.modules)); _exit(status)"
        command.write_text(command.read_text().replace(wanted, told))
        ended = host.run(str(command), "w", "echo here; exit 3", stdin=subprocess.DEVNULL)
        assert (ended.returncode, ended.stdout, ended.stderr) == (3, b"here\n", b"")
        assert loaded.read_text() == "False"
    finally:
        host.close()


def test_the_light_os_is_like_os(home: Path) -> None:
    script = f"""{WITHOUT_OS}
light, had = sys.modules["cexec.start_bundle"].os, "os" in sys.modules
given = {{name: getattr(light, name) for name in vars(light) if not name.startswith("__")}}
texts = [light.fsencode(one) for one in ("\\udcff\\u00e4", b"x")]
import os
assert light is not os and not had
assert texts == [os.fsencode(one) for one in ("\\udcff\\u00e4", b"x")]
assert given.pop("environ") == dict(os.environ) and given.pop("fsencode")
assert all(getattr(os, name) is value or getattr(os, name) == value for name, value in given.items())
assert (light.path, light.makedirs) == (os.path, os.makedirs)
try:
    light.nonsense
except AttributeError as error:
    print(error)
"""
    assert ran(home, script, "-IS") == "module 'os' has no attribute 'nonsense'"


def test_nacl_is_what_it_is_without_its_first_file(home: Path) -> None:
    script = f"""{WITHOUT_OS}
import nacl, nacl.secret
box = nacl.secret.SecretBox(bytes(32))
print(hasattr(nacl, "__version__"), box.decrypt(box.encrypt(b"x")))
"""
    assert ran(home, script, "-IS") == "False b'x'"


def test_a_directory_that_is_left_of_nacl_hides_no_other_one(home: Path, tmp_path: Path) -> None:
    """Regression: `cexec` found no libsodium if a __pycache__ was left of another nacl beside it."""
    (packages,) = home.glob("lib/python3.*/site-packages")
    (tmp_path / "elsewhere").mkdir()
    (packages / "nacl").rename(tmp_path / "elsewhere" / "nacl")
    (packages / "nacl" / "__pycache__").mkdir(parents=True)
    script = f"sys.path.append({str(tmp_path / 'elsewhere')!r})\n{WITHOUT_OS}import nacl; print(nacl.__file__[-16:])"
    assert ran(home, script, "-IS") == "nacl/__init__.py"


def test_a_module_of_machine_code_that_is_elsewhere_is_found(home: Path, tmp_path: Path) -> None:
    (packages,) = home.glob("lib/python3.*/site-packages")
    (file,) = packages.glob("_cffi_backend*.so")
    file.rename(tmp_path / file.name)
    script = f"sys.path.append({str(tmp_path)!r})\n{WITHOUT_OS}import _cffi_backend; print(_cffi_backend.__file__)"
    assert ran(home, script, "-IS") == str(tmp_path / file.name)


def test_modules_of_machine_code_are_as_python_makes_them(home: Path) -> None:
    names = [*bundle_start.EXTENSIONS, "_cffi_backend", "nacl._sodium"]
    look = f"""import os, sys
for name in {names}:
    one = __import__(name, fromlist=["x"])
    spec = one.__spec__
    print(name, os.path.realpath(getattr(one, "__file__", "")), one.__package__, spec.name, spec.origin == one.__file__)
print(__import__("nacl._sodium")._sodium.ffi is not None)
"""
    assert ran(home, WITHOUT_OS + look, "-IS") == ran(home, look, "-IS")


def test_an_entry_of_the_path_that_is_no_text_is_passed_over(home: Path) -> None:
    """Regression: a call ended with a traceback where sitecustomize had put a Path there; Python ignores it."""
    script = f"import pathlib\nsys.path[:0] = [pathlib.Path('/x'), b'/y']\n{WITHOUT_OS}print(main.__name__)"
    assert ran(home, script, "-IS") == "main"


def test_a_call_that_make_install_has_installed_looks_for_ours_last(home: Path) -> None:
    install_launchers.rewrite(str(home), install_launchers.OFTEN)
    (packages,) = home.glob("lib/python3.*/site-packages")
    start, _, _ = (home / "bin" / "cexec").read_text().partition("_exit(cexec")
    script = f"{start}print(sys.path[-1])"
    assert subprocess.check_output([sys.executable, "-IS", "-c", script], text=True) == f"{packages}\n"


def zipped(packages: Path) -> Path:
    return Path(shutil.make_archive(str(packages / "zipped"), "zip", packages, "cexec"))


def without_sources(packages: Path) -> Path:
    assert compileall.compile_dir(packages / "cexec", quiet=1, legacy=True)
    for path in (packages / "cexec").rglob("*.py"):
        path.unlink()
    return packages


@pytest.mark.parametrize("change", [zipped, without_sources])
def test_a_package_that_is_no_directory_of_sources_works(change: Callable[[Path], Path], home: Path) -> None:
    """Regression: the later bundles were looked for beside the first one only, as source."""
    (packages,) = home.glob("lib/python3.*/site-packages")
    found = change(packages)
    if found != packages:
        shutil.rmtree(packages / "cexec")
    script = f"sys.path.insert(0, {str(found)!r})\n{WITHOUT_OS}import cexec.net.pump as pump; print(pump.Pump.__name__)"
    assert ran(home, script, "-IS") == "Pump"


@pytest.mark.parametrize("before", [False, True])
def test_nacl_elsewhere_or_loaded_already_is_left_alone(home: Path, tmp_path: Path, before: bool) -> None:
    (packages,) = home.glob("lib/python3.*/site-packages")
    if not before:
        (tmp_path / "elsewhere").mkdir()
        (packages / "nacl").rename(tmp_path / "elsewhere" / "nacl")
    first = f"sys.path.append({str(tmp_path / 'elsewhere')!r})\n" + "import nacl\n" * before
    places = "nacl.__path__, nacl._sodium.__file__.rpartition('/')[0]"
    script = f"{first}{WITHOUT_OS}import nacl._sodium; print(hasattr(nacl, '__version__'), {places})"
    place = tmp_path / "elsewhere" if not before else packages
    assert ran(home, script, "-IS") == f"True ['{place}/nacl'] {place}/nacl"


def test_nacl_that_was_loaded_from_elsewhere_gets_its_own_machine_code(home: Path, tmp_path: Path) -> None:
    (packages,) = home.glob("lib/python3.*/site-packages")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "nacl").symlink_to((packages / "nacl").resolve())
    first = f"sys.path.insert(0, {str(elsewhere)!r}); import nacl"
    script = f"{first}\n{WITHOUT_OS}import nacl._sodium as code; print(code.__file__)"
    assert ran(home, script, "-IS").startswith(f"{elsewhere}/nacl/")


def test_where_python_has_loaded_os_the_bundles_use_it(home: Path) -> None:
    script = f"{WITHOUT_OS}import os; print(sys.modules['cexec.start_bundle'].os is os)"
    assert ran(home, script) == "True"


def test_each_bundle_is_read_when_it_is_due(service: StartService, application: Application, home: Path) -> None:
    """The first is not looked for; each other is read for the first of its modules that is wanted, which alone is."""
    service("true")
    (packages,) = home.glob("lib/python3.*/site-packages")
    argv = [*as_pip_leaves_it(home), str(application.public)]
    told, result = imports_of_a_quick_call(argv, changes={"PYTHONPATH": str(packages)})
    assert result.returncode == 0, result.stderr
    ours = [name for name in told if name.startswith("cexec.")]
    assert ours == [
        "cexec.client.search.reception",
        "cexec.protocol.connection.session",
        "cexec.client.attempt.inputs",
    ]
    looked_for = {*bundle_start.EXTENSIONS, "_cffi_backend", "nacl._sodium"} & {*told}
    assert looked_for <= set(sys.builtin_module_names)
