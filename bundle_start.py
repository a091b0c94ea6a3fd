"""Builds a wheel in which the modules that a plain call of `cexec` needs are together in four more modules.

Those that `cexec-ssh` needs besides are in a fifth one.

To find and read a module costs such a call as much as its code does, so four files instead of fifty take a fifth of the
call's CPU time.  Each but the first is read while somebody else works (BUNDLES says when).  setuptools calls
`BuildWithBundle` (pyproject.toml) when it builds a wheel; a checkout and an editable installation have no bundle, and
import the modules themselves.

Contract: `bundles(root)` returns the sources of the bundles that BUNDLES names.  They contain its modules, each as the
body of a class, because a class's body is compiled as a module's is: its names are looked up in a dictionary.  The
class is never made: `run` runs the bodies in the dictionaries of modules, each after those that it imports, so Python's
importer has nothing to do.  A bundle is ordinary source, which the Python that installs it compiles.  Docstrings and
annotations are left out, since to read them costs time as well.  Where Python has not loaded `os` for `site`, the
bodies get a light module in its place (`light_os`).  The modules of machine code that they import are loaded before, by
their paths (`load_extensions`).  tests/test_start_bundle.py compares BUNDLES with what a call loads
and when, and each body with its module.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from pathlib import Path

from setuptools.command.build_py import build_py

FIRST, SSH = "start_bundle", "ssh_bundle"
BUNDLES = {
    # until the announcement has been sent
    FIRST: (
        "client.attempt.descriptors", "client.attempt.signals", "client.blocking.client", "client.request",
        "client.search.choice", "client.search.search", "commands.cexec", "common_errors", "net.announcer",
        "net.destinations", "net.groups", "net.interfaces", "net.sockets", "protocol.base.certificate",
        "protocol.base.client_key", "protocol.base.limits", "protocol.base.noise", "protocol.base.sodium",
        "protocol.base.wire", "protocol.connection.options", "protocol.datagrams.announcement",
        "protocol.datagrams.datagram", "protocol.datagrams.hello", "protocol.datagrams.requirements",
        "protocol.decisions.race", "system.reason", "system.signal_state", "system.storage.keyfile",
        "system.storage.user_files",
    ),
    # while the workers think about it
    "answer_bundle": (
        "client.search.reception", "client.search.trust", "protocol.connection.channel",
        "protocol.connection.records", "system.io.wakeup",
    ),
    # while a worker thinks about our answer
    "session_bundle": (
        "protocol.connection.frames", "protocol.connection.session", "protocol.connection.session_states",
        "protocol.connection.silence", "protocol.connection.streams",
    ),
    # while the program starts
    "job_bundle": (
        "client.attempt.attempt", "client.attempt.inputs", "client.attempt.outputs", "client.attempt.stepping",
        "client.blocking.driver", "net.pump", "net.sinks", "system.io.fds", "system.io.opened_fds",
    ),
    # at once by `cexec-ssh`, which needs all others as well
    SSH: ("commands.cexec_ssh", "commands.ssh_options"),
}  # fmt: skip

# Python's modules of machine code that a plain call loads; `load_extensions` has those of cffi and PyNaCl.
EXTENSIONS = "_socket", "_blake2", "select", "fcntl"

HEAD = '"""The modules of a plain call of `cexec`, together; bundle_start.py made this when it built the wheel."""\n\n'
LOADER = '''
import posix, sys

_MODULE, _SPEC = type(sys), type(__spec__)


def light_os(modules):
    """Returns `os`, or if nobody has loaded it, a module that is like it and loads it when a plain call ends.

    It has the system calls and constants, the environment as it is, and little more; all else comes from `os`.
    """
    if "os" in modules:
        return modules["os"]
    coding = sys.getfilesystemencoding(), sys.getfilesystemencodeerrors()

    def fsencode(name):
        name = posix.fspath(name)
        return name.encode(*coding) if isinstance(name, str) else name

    def rest(name):
        import os

        value = getattr(os, name)
        setattr(light, name, value)
        return value

    light = _MODULE("os")
    vars(light).update({name: value for name, value in vars(posix).items() if name[0] != "_" or name == "_exit"})
    light.environ = {key.decode(*coding): value.decode(*coding) for key, value in posix.environ.items()}
    light.SEEK_SET, light.SEEK_CUR, light.SEEK_END, light.devnull = 0, 1, 2, "/dev/null"
    light.fsencode, light.__getattr__ = fsencode, rest
    return light


def skip_file_of(package, modules):
    """Makes the package `nacl` without its file, which has nothing but the version in it.

    It is beside ours, or Python looks for it as always.
    """
    path = f"{modules[__name__].__file__.rpartition('/cexec/')[0]}/{package}"
    try:
        posix.stat(f"{path}/__init__.py")  # a directory may be left of one that was removed
    except OSError:
        return
    if package not in modules:
        modules[package] = _MODULE(package)
        modules[package].__path__ = [path]


def load_extensions(modules):
    """Loads modules of machine code from where they usually are: to look for each takes half as long as to load it.

    Those that are not there are imported as always.
    """
    from _frozen_importlib_external import ExtensionFileLoader
    from _imp import extension_suffixes

    suffix, *_ = extension_suffixes()
    ours = modules[__name__].__file__.rpartition("/cexec/")[0]
    pythons = [where for where in sys.path if type(where) is str and where.endswith("/lib-dynload")][:1]
    paths = {name: f"{where}/{name}{suffix}" for where in pythons for name in _EXTENSIONS}
    paths["_cffi_backend"] = f"{ours}/_cffi_backend{suffix}"
    if getattr(modules.get("nacl"), "__path__", None) == [f"{ours}/nacl"]:
        paths["nacl._sodium"] = f"{ours}/nacl/_sodium.abi3.so"
    for name, path in paths.items():
        if name in modules or name in sys.builtin_module_names:
            continue
        loader = ExtensionFileLoader(name, path)
        spec = _SPEC(name, loader, origin=path)
        spec.has_location = True
        try:
            module = modules[name] = loader.create_module(spec)
            module.__spec__, module.__loader__, module.__file__ = spec, loader, path
            module.__package__, _, last = name.rpartition(".")
            loader.exec_module(module)
        except ImportError:
            modules.pop(name, None)
            continue
        if module.__package__:
            setattr(modules[module.__package__], last, module)


def run(holder, modules):
    """Makes all modules of a bundle, those first that others import.  `modules`: those of sys."""
    for code in holder.__code__.co_consts:
        if isinstance(code, type(holder.__code__)):
            name = code.co_name.replace("__", ".")
            module = modules[name] = _MODULE(name)
            module.__spec__ = _SPEC(name, modules[__name__])  # without one Python makes an error at each import of it
            parent, _, last = name.rpartition(".")
            setattr(modules[parent], last, module)
            exec(code, module.__dict__)


def find_spec(name, path=None, target=None):
    """Makes the modules of a later bundle when the first of them is wanted; for sys.meta_path."""
    for bundle, names in _LATER.items():
        if name in names:
            del _LATER[bundle]
            run(read(bundle), sys.modules)
            return sys.modules[name].__spec__
    return None


def read(bundle):
    """Returns the holder of another bundle.  Python need not look for that: it is a file beside this one."""
    if type(__spec__.loader).__name__ != "SourceFileLoader":  # in a zip file, or without sources
        return __import__(f"cexec.{bundle}", fromlist=["b"]).b
    loader = type(__spec__.loader)(bundle, f"{__file__.rpartition('/')[0]}/{bundle}.py")
    exec(loader.get_code(bundle), made := {})
    return made["b"]


def create_module(spec):
    """Returns the module that was made with the others."""
    return sys.modules[spec.name]


def exec_module(module):
    """Its body has run."""


def install():
    """Makes the modules of this bundle, and waits for a wish for those of the others."""
    global os
    os = light_os(sys.modules)
    skip_file_of("nacl", sys.modules)
    load_extensions(sys.modules)
    run(b, sys.modules)
    sys.meta_path.insert(0, sys.modules[__name__])
'''


def bundles(root: Path) -> dict[str, str]:
    """Returns the sources of the bundles of the package in `root`, by their names."""
    made = {bundle: f"{HEAD}{_holder(root, names)}\n" for bundle, names in BUNDLES.items()}
    later = {bundle: {f"cexec.{name}" for name in names} for bundle, names in BUNDLES.items() if bundle != FIRST}
    made[FIRST] += f"\n_EXTENSIONS, _LATER = {EXTENSIONS}, {later}\n{LOADER}"
    return made


def _holder(root: Path, names: tuple[str, ...]) -> str:
    """Returns the source of the function that holds the bodies of these modules, in the order of their imports."""
    modules = {}
    for name in names:
        module = ast.parse((root / "cexec" / f"{name.replace('.', '/')}.py").read_text(encoding="utf-8"))
        modules[f"cexec.{name}"] = Lightened().visit(module)
    bodies = [
        _with_body(f"class {name.replace('.', '__')}: pass", [*_globals(modules[name]), *modules[name].body])
        for name in in_order(modules)
    ]
    return ast.unparse(_with_body("def b(): pass", bodies))


def in_order(modules: Mapping[str, ast.Module]) -> list[str]:
    """Returns the names of the modules: each comes after those that it imports when it is made."""
    found: dict[str, None] = {}

    def add(name: str) -> None:
        for one in modules[name].body:
            if isinstance(one, ast.ImportFrom):
                for wanted in (str(one.module), *(f"{one.module}.{alias.name}" for alias in one.names)):
                    if wanted in modules and wanted != name:
                        add(wanted)
        found[name] = None

    for name in modules:
        add(name)
    return list(found)


class Lightened(ast.NodeTransformer):
    """Takes away what only readers and type checkers want: docstrings, annotations, and imports for these."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        return self._without_docstring(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        if node.decorator_list or {"NamedTuple", "TypedDict"} & {ast.unparse(base) for base in node.bases}:
            raise ValueError(f"{node.name} may want its annotations, which the bundle has not")
        return self._without_docstring(node)

    def visit_Module(self, node: ast.Module) -> ast.AST:
        return self._without_docstring(node)

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.annotation = None
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST | None:
        self.generic_visit(node)
        return None if node.value is None else ast.copy_location(ast.Assign([node.target], node.value), node)

    def visit_Import(self, node: ast.Import) -> ast.AST:
        if [alias.name for alias in node.names] != ["os"]:
            return node
        return ast.ImportFrom(f"cexec.{FIRST}", node.names, 0)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.AST | None:
        return None if node.module == "__future__" else node

    def visit_If(self, node: ast.If) -> ast.AST | None:
        self.generic_visit(node)
        return None if ast.unparse(node.test) == "TYPE_CHECKING" and not node.orelse else node

    def _without_docstring(self, node: ast.FunctionDef | ast.ClassDef | ast.Module) -> ast.AST:
        if ast.get_docstring(node, clean=False) is not None:
            del node.body[0]
        self.generic_visit(node)
        node.body = node.body or [ast.Pass()]
        return node


def _globals(module: ast.Module) -> list[ast.stmt]:
    """Returns a statement that gives classes and functions the names that they have in the module."""
    names = [one.name for one in module.body if isinstance(one, ast.ClassDef | ast.FunctionDef)]
    return [ast.Global(names)] if names else []


def _with_body(source: str, body: list[ast.stmt]) -> ast.stmt:
    """Returns the class or function of `source` with another body."""
    (holder,) = ast.parse(source).body
    assert isinstance(holder, ast.ClassDef | ast.FunctionDef)
    holder.body = body
    return holder


class BuildWithBundle(build_py):  # type: ignore[misc]  # setuptools has no types
    """Copies the package as always, and adds the bundle."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            for name, source in bundles(Path()).items():
                Path(self.build_lib, "cexec", f"{name}.py").write_text(source, encoding="utf-8")

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        """Names the bundles among the files of the wheel."""
        outputs: list[str] = super().get_outputs(include_bytecode)
        bundled = [] if self.editable_mode else [f"{self.build_lib}/cexec/{name}.py" for name in BUNDLES]
        return [*outputs, *bundled]
