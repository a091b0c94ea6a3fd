"""Every small mistake that could be in a module: its mutants.

Contract: `mutants_of(module, source)` returns them in a fixed order, each with its place and what it says before and
after; `compiled(mutant, source, path)` gives the code of the module with that one change.  Not changed are texts
(messages, names), annotations, docstrings, imports, `__slots__`, `__all__` and what is for type checkers only.  Tables
of a module count as much as functions: their constants are changed and their elements left out.
"""

from __future__ import annotations

import ast
import copy
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from types import CodeType

COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
OPERATIONS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv, ast.Pow: ast.Mult, ast.LShift: ast.RShift, ast.RShift: ast.LShift, ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd, ast.BitXor: ast.BitOr,
}  # fmt: skip
CALLS = {"min": "max", "max": "min", "any": "all", "all": "any"}
NOT_CODE = {"__slots__", "__all__", "TYPE_CHECKING"}
FOR_TYPE_CHECKERS = {"annotation", "returns", "decorator_list", "type_comment", "bases", "keywords of a class"}


@dataclass(frozen=True, slots=True)
class Mutant:
    """Change number `number` of the module's source; `text` is the line in which it is.

    `str` of it names it by what is written there, because the numbers of lines move.  `which` counts equal names.
    """

    module: str
    number: int
    line: int
    text: str
    before: str
    after: str
    which: int

    def __str__(self) -> str:
        again = f" ({self.which})" if self.which > 1 else ""
        return f"{self.module}: {self.before} -> {self.after} in: {self.text}{again}"


@dataclass(frozen=True, slots=True)
class Change:
    """In `place`, the dictionary or list that holds it, `old` becomes `new`."""

    place: dict[str, object] | list[ast.AST]
    key: str | int
    old: ast.AST
    new: ast.AST

    def make(self) -> None:
        self.place[self.key] = self.new  # type: ignore[index]


def mutants_of(module: str, source: str) -> list[Mutant]:
    """Returns all mutants of one module, whose dotted name is `module`."""
    lines = source.splitlines()
    found = []
    names: Counter[tuple[str, ...]] = Counter()
    for number, change in enumerate(_changes(ast.parse(source))):
        line = getattr(change.old, "lineno", 0)
        name = (lines[line - 1].strip(), _shown(change.old), _shown(change.new))
        names[name] += 1
        found.append(Mutant(module, number, line, *name, names[name]))
    return found


def compiled(mutant: Mutant, source: str, path: str) -> CodeType:
    """Returns the code of the module with this change and no other."""
    tree = ast.parse(source)
    for number, change in enumerate(_changes(tree)):
        if number == mutant.number:
            change.make()
            return compile(ast.fix_missing_locations(tree), path, "exec", dont_inherit=True)
    raise ValueError(f"there is no change {mutant.number}: the source is another one")


def _changes(node: ast.AST) -> Iterator[Change]:
    """All changes below `node`, none of them made."""
    for name, value in ast.iter_fields(node):
        if name in FOR_TYPE_CHECKERS:
            continue
        if isinstance(value, list):
            for index, child in enumerate(value):
                yield from _changes_of(child, value, index)
        elif isinstance(value, ast.AST):
            yield from _changes_of(value, node.__dict__, name)


def _changes_of(child: object, place: dict[str, object] | list[ast.AST], key: str | int) -> Iterator[Change]:
    if not isinstance(child, ast.AST) or _is_no_code(child):
        return
    for new in _variants(child):
        yield Change(place, key, child, ast.copy_location(new, child))
    yield from _changes(child)


def _is_no_code(node: ast.AST) -> bool:
    match node:
        case ast.Import() | ast.ImportFrom() | ast.JoinedStr():
            return True
        case ast.Expr(value=ast.Constant()):
            return True  # a docstring
        case ast.Assign(targets=[ast.Name(id=name)]) | ast.If(test=ast.Name(id=name)):
            return name in NOT_CODE
    return False


def _variants(node: ast.AST) -> Iterator[ast.AST]:
    """What could stand there instead."""
    if isinstance(node, ast.stmt):
        yield from _statements(node)
    elif isinstance(node, ast.Constant):
        yield from _constants(node)
    else:
        yield from _expressions(node)


def _statements(node: ast.stmt) -> Iterator[ast.AST]:
    match node:
        case ast.Expr() | ast.Assign() | ast.AugAssign() | ast.Raise() | ast.Delete():
            yield ast.Pass()
        case ast.Return(value=value) if value is not None and not isinstance(value, ast.Constant):
            yield ast.Return(ast.Constant(None))
        case ast.If() | ast.While():
            for truth in (True, False) if isinstance(node, ast.If) else (False,):
                yield _with(node, test=ast.Constant(truth))


def _constants(node: ast.Constant) -> Iterator[ast.AST]:
    match node.value:
        case bool(value):
            yield ast.Constant(not value)
        case int(value) | float(value):
            yield ast.Constant(value + 1)
        case bytes(value):
            yield ast.Constant(value + b"!")


def _expressions(node: ast.AST) -> Iterator[ast.AST]:
    match node:
        case ast.Compare(ops=[operator, *others]) if type(operator) in COMPARISONS:
            yield _with(node, ops=[COMPARISONS[type(operator)](), *others])
        case ast.BoolOp(op=operator):
            yield _with(node, op=ast.Or() if isinstance(operator, ast.And) else ast.And())
        case ast.UnaryOp(op=ast.Not() | ast.USub(), operand=operand):
            yield operand
        case ast.BinOp(op=operator) if type(operator) in OPERATIONS:
            yield _with(node, op=OPERATIONS[type(operator)]())
        case ast.IfExp(body=body, orelse=orelse):
            yield _with(node, body=orelse, orelse=body)
        case ast.Call(func=ast.Name(id=name)) if name in CALLS:
            yield _with(node, func=ast.Name(CALLS[name], ast.Load()))
        case ast.Call(args=[first, second, *others]) if not isinstance(second, ast.Starred):
            yield _with(node, args=[second, first, *others])
        case ast.Tuple(ctx=ast.Load()) | ast.List(ctx=ast.Load()) | ast.Set():
            for index in range(len(node.elts)):
                yield _with(node, elts=node.elts[:index] + node.elts[index + 1 :])
        case ast.Dict():
            for index in range(len(node.keys)):
                keys, values = list(node.keys), list(node.values)
                del keys[index], values[index]
                yield _with(node, keys=keys, values=values)


def _with(node: ast.AST, **fields: object) -> ast.AST:
    """A copy of the node with other fields; what is below the others is shared."""
    changed = copy.copy(node)
    for name, value in fields.items():
        setattr(changed, name, value)
    return changed


def _shown(node: ast.AST) -> str:
    """The first line of the source."""
    return ast.unparse(node).partition("\n")[0]
