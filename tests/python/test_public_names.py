"""The names of `cexec` itself: nothing is loaded until one is used, and all are there."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib import import_module

import pytest

import cexec
from tests.environment import ROOT


def test_import_cexec_alone_imports_nothing() -> None:
    code = "import sys; before = set(sys.modules); import cexec; print(sorted(set(sys.modules) - before))"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert (result.stdout, result.stderr) == ("['cexec']\n", "")


@pytest.mark.parametrize("name", cexec.PUBLIC)
def test_each_public_name_is_what_its_module_has(name: str) -> None:
    module = import_module(cexec.PUBLIC[name])
    assert getattr(cexec, name) is getattr(module, name)
    assert name in dir(cexec)
    assert getattr(module, name).__doc__


def test_type_checkers_see_the_same_names() -> None:
    tree = ast.parse((ROOT / "cexec" / "__init__.pyi").read_text())
    seen = {one.asname: node.module for node in tree.body if isinstance(node, ast.ImportFrom) for one in node.names}
    assert seen == cexec.PUBLIC


def test_other_names_are_not_there() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        cexec.Nothing  # type: ignore[attr-defined]  # noqa: B018


def test_the_package_says_that_it_is_typed() -> None:
    assert (ROOT / "cexec" / "py.typed").exists()
