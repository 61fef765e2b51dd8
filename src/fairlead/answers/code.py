"""Programs by normal form: the last fenced block, else the whole text. Ours, no paper; it answers what ACAR (2026, arXiv 2602.21231) found, that
programs which differ in wording alone make every probe look like another answer.

**Python** is parsed and written anew: without comments, docstrings, annotations of functions without decorators, and with the names that are
local to a function, lambda or comprehension numbered in the order in which they are bound. Names of functions, classes, modules, attributes
and of what a module binds are its interface, and stay; so do parameters that are keyword-only or that some call gives by name.

**What does not parse**, or is fenced as another language, is compared token by token: spacing does not count, comments neither where the fence
names a language whose comments are known (`_COMMENTS`). Such a form begins with ``?``, so that it is never taken for Python.

Two programs that do the same in another way are two answers: behaviour needs a run. Bounds: Python of more than `LONGEST` characters or some
`BUSIEST` nodes, or nested more than `DEEPEST` deep, is compared token by token; what is longer than `MOST` characters, as it stands. Cost: 1 ms for
a program of 30 lines, 6 ms at the worst.
"""

from __future__ import annotations

import ast
import re
import threading
import warnings
from collections.abc import Iterable, Sequence
from textwrap import dedent
from typing import Final, TypeAlias

from fairlead.answers.base import Reader
from fairlead.answers.fences import fenced

LONGEST: Final = 4_000
DEEPEST: Final = 40
BUSIEST: Final = 1_500
MOST: Final = 20_000

_PYTHON: Final = frozenset({"", "py", "py3", "python", "python3"})
_SLASHES: Final = r"//[^\n]*|/\*(?:[^*]|\*(?!/))*+(?:\*/|\Z)"
_HASH: Final = r"\#[^\n]*"
_DASHES: Final = r"--[^\n]*"
_LANGUAGES: Final = {
    _SLASHES: "c c++ cpp cc h hpp c# cs csharp java js javascript jsx ts typescript tsx go rust rs kotlin kt swift scala dart php css scss",
    _HASH: "sh bash zsh shell ruby rb perl pl r yaml yml toml julia jl elixir py py3 python python3",
    _DASHES: "sql lua haskell hs ada elm",
}
_COMMENTS: Final = {name: comments for comments, names in _LANGUAGES.items() for name in names.split()}
_TOKENS: Final = (
    r'"[^"\\\n]*+(?:\\.[^"\\\n]*+)*+"'
    r"|'[^'\\\n]*+(?:\\.[^'\\\n]*+)*+'"
    r"|`[^`\\]*+(?:\\[\s\S][^`\\]*+)*+`"
    r"|\\\S|\w+|[^\w\s\"'`]"
)
_PLAIN: Final = re.compile(_TOKENS)
_ONE_AT_A_TIME: Final = threading.Lock()
"""Filters of warnings belong to the whole process."""


class Code(Reader):
    """Two texts are one answer if their programs have one normal form."""

    def read(self, text: str) -> str | None:
        """Return the program in normal form; None if there is none."""
        block = fenced(text)
        language, text = ("", text) if block is None else block
        text = dedent(text.strip("\n")).rstrip()
        if len(text) > MOST:
            return text
        found = _python(text) if language in _PYTHON and len(text) <= LONGEST else None
        return found or _tokens(text, language)


def _tokens(text: str, language: str) -> str | None:
    """Return the tokens of `text`, comments left out where the language's are known; None if there are none."""
    comments = _COMMENTS.get(language)
    if comments is None:
        found = _PLAIN.findall(text)
    else:
        found = [token for comment, token in re.findall(f"({comments})|({_TOKENS})", text) if not comment]
    if not found:
        return None
    return " ".join(found if found[0] == "?" else ["?", *found])


def _python(text: str) -> str | None:
    """Return Python in normal form; None if it does not parse, holds nothing, or is beyond the bounds."""
    try:
        # A model's own invalid escapes are not our user's business, and how warnings are filtered must not decide what is read.
        with _ONE_AT_A_TIME, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(text)
        if _too_much(tree):
            return None
        calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call))
        _Renaming(frozenset(k.arg for call in calls for k in call.keywords if k.arg)).visit(tree, {}, {})
        form = ast.unparse(tree)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    return form if form and len(form) <= LONGEST and "```" not in form else None


def _too_much(tree: ast.AST) -> bool:
    # By count and not by the interpreter's own limit, which depends on who calls: a replay must read the same.
    level: list[ast.AST] = [tree]
    depth = nodes = 0
    while level and depth <= DEEPEST and nodes <= BUSIEST:
        depth, nodes = depth + 1, nodes + len(level)
        level = [child for node in level for child in ast.iter_child_nodes(node)]
    return bool(level)


_Names: TypeAlias = dict[str, str]


class _Renaming:
    """Changes a tree in place: numbers local names, drops what does not count.

    `visit` takes what names are called where the node stands, and what functions inside it see: the same, but for a class body's own names.
    """

    def __init__(self, named: frozenset[str]) -> None:
        self.named = named
        """Names by which some call gives an argument."""
        self.count = 0

    def visit(self, node: ast.AST, names: _Names, seen: _Names) -> None:
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                node.name = names.get(node.name, node.name)
                arguments = self._signature(node.args, names, seen, annotated=bool(node.decorator_list))
                if not node.decorator_list:
                    node.returns = None
                self._all(node.decorator_list, names, seen)
                node.body = _without_texts(node.body)
                bound, shared = _bound(node.body)
                inner = {k: v for k, v in seen.items() if k not in shared} | arguments
                inner |= self._new(name for name in bound if name not in arguments)
                self._all(node.body, inner, inner)
            case ast.Lambda():
                inner = seen | self._signature(node.args, names, seen, annotated=False)
                self.visit(node.body, inner, inner)
            case ast.ClassDef():
                node.name = names.get(node.name, node.name)
                self._all([*node.decorator_list, *node.bases, *node.keywords], names, seen)
                node.body = _without_texts(node.body)
                own, _ = _bound(node.body)
                self._all(node.body, {k: v for k, v in names.items() if k not in own}, seen)
            case ast.ListComp() | ast.SetComp() | ast.DictComp() | ast.GeneratorExp():
                first, *others = node.generators
                self.visit(first.iter, names, seen)
                targets = (n for g in node.generators for n in ast.walk(g.target))
                inner = seen | self._new(n.id for n in targets if isinstance(n, ast.Name))
                self._all([first.target, *first.ifs, *others], inner, inner)
                results = [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]
                self._all(results, inner, inner)
            case ast.JoinedStr() if any(isinstance(v, ast.Constant) and "\n" in str(v.value) for v in node.values):
                raise ValueError("written anew, it would stand on several lines")
            case _:
                match node:
                    case ast.Module():
                        node.body = _without_texts(node.body, least=())
                    case ast.Name():
                        node.id = names.get(node.id, node.id)
                    case (
                        ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name))
                    ):
                        node.name = names.get(name, name)
                    case ast.MatchMapping(rest=str(name)):
                        node.rest = names.get(name, name)
                    case ast.Nonlocal():
                        node.names = [names.get(name, name) for name in node.names]
                self._all(ast.iter_child_nodes(node), names, seen)

    def _all(self, nodes: Iterable[ast.AST], names: _Names, seen: _Names) -> None:
        for node in nodes:
            self.visit(node, names, seen)

    def _signature(self, args: ast.arguments, names: _Names, seen: _Names, *, annotated: bool) -> _Names:
        """Rename parameters; return what they are called now."""
        self._all([*args.defaults, *(d for d in args.kw_defaults if d is not None)], names, seen)
        free = [a for a in (*args.posonlyargs, *args.args, args.vararg, args.kwarg) if a is not None]
        found = self._new(a.arg for a in free if a.arg not in self.named)
        for a in (*free, *args.kwonlyargs):
            if a.annotation is not None and annotated:
                self.visit(a.annotation, names, seen)
            a.annotation = a.annotation if annotated else None
            a.arg = found.setdefault(a.arg, a.arg)
        return found

    def _new(self, names: Iterable[str]) -> _Names:
        found: _Names = {}
        for name in names:
            if name not in found:
                found[name] = f"_{self.count}"
                self.count += 1
        return found


def _without_texts(body: list[ast.stmt], least: Sequence[ast.stmt] = (ast.Pass(),)) -> list[ast.stmt]:
    """Leave out statements that are a text alone: the docstring, and what would become one."""
    kept = [
        s
        for s in body
        if not (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant) and isinstance(s.value.value, str))
    ]
    return kept or [*least]


def _bound(body: list[ast.stmt]) -> tuple[list[str], set[str]]:
    """Return the names that a function or class with this body binds, in order, and those that it has from elsewhere: by ``global``.

    Names of imports and of ``nonlocal`` are in neither: they keep what they are called outside.
    """
    bound: list[str] = []
    outer: set[str] = set()
    imported: set[str] = set()
    todo: list[ast.AST] = [*reversed(body)]
    while todo:
        node = todo.pop()
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                bound.append(name)
                continue
            case ast.Lambda():
                continue
            case ast.ListComp() | ast.SetComp() | ast.DictComp() | ast.GeneratorExp():
                bound += [n.target.id for n in ast.walk(node) if isinstance(n, ast.NamedExpr)]
                continue
            case ast.Name(id=name, ctx=ast.Store() | ast.Del()):
                bound.append(name)
            case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
                bound.append(name)
            case ast.MatchMapping(rest=str(name)):
                bound.append(name)
            case ast.Global(names=names):
                outer.update(names)
            case ast.Nonlocal(names=names):
                imported.update(names)
            case ast.Import() | ast.ImportFrom():
                imported.update((a.asname or a.name).partition(".")[0] for a in node.names)
        todo += reversed([*ast.iter_child_nodes(node)])
    return [name for name in dict.fromkeys(bound) if name not in outer and name not in imported], outer
