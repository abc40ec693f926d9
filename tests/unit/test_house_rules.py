"""The budgets and habits of CONTRIBUTING.md, so that they are kept and not only remembered."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import caravan

ROOT = Path(__file__).parents[2]
SOURCES = sorted(
    file
    for folder in ("server/caravan", "kernels/caravan_kernels", "training/demo_training")
    for file in (ROOT / folder).rglob("*.py")
)
MODULE_LINES = 400
FUNCTION_LINES = 60
PARAMETERS = 8

Function = ast.FunctionDef | ast.AsyncFunctionDef


def label(path: Path) -> str:
    return str(path.relative_to(ROOT))


def functions(tree: ast.Module) -> Iterator[Function]:
    """All but compiled kernels, whose arguments and length are the hardware's."""
    for node in ast.walk(tree):
        if isinstance(node, Function):
            decorators = " ".join(ast.unparse(d) for d in node.decorator_list)
            if "njit" not in decorators and "triton.jit" not in decorators:
                yield node


@pytest.mark.parametrize("path", SOURCES, ids=label)
def test_module(path: Path) -> None:
    text = path.read_text()
    tree = ast.parse(text)
    assert ast.get_docstring(tree), "a module says what it is for"
    assert len(text.splitlines()) <= MODULE_LINES
    assert not [n.lineno for n in ast.walk(tree) if isinstance(n, ast.Global)], "no global state"
    for function in functions(tree):
        where = f"{function.name}, line {function.lineno}"
        assert (function.end_lineno or 0) - function.lineno < FUNCTION_LINES, where
        arguments = function.args
        count = len(arguments.posonlyargs) + len(arguments.args) + len(arguments.kwonlyargs)
        assert count <= PARAMETERS + 1, where  # self is free


@pytest.mark.parametrize("folder", ["server", "kernels"])
def test_no_module_beside_the_package(folder: str) -> None:
    """A top-level package `kernels` would hide Hugging Face's, and break transformers."""
    assert list((ROOT / folder).glob("*.py")) == []


@pytest.mark.parametrize("path", [*(ROOT / "server/caravan").glob("*/__init__.py")], ids=label)
def test_packages_import_nothing(path: Path) -> None:
    """Or the contract that the API never loads torch would hang on who imports whom."""
    if path.parent.name != "cli":
        assert len(ast.parse(path.read_text()).body) == 1


def test_names_that_say_nothing_are_not_used() -> None:
    assert not [path for path in SOURCES if path.stem in {"utils", "helpers", "common", "misc"}]


def test_unfinished_marks_are_not_left() -> None:
    marked = [
        label(path)
        for path in SOURCES
        if re.search(r"\b(TODO|FIXME|XXX|NotImplementedError)\b", path.read_text())
    ]
    assert marked == []


def test_the_changelog_starts_with_this_version() -> None:
    versions = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert versions[0] == caravan.__version__
    assert f'version = "{caravan.__version__}"' in (ROOT / "pyproject.toml").read_text()


def test_links_in_the_documents_lead_somewhere() -> None:
    documents = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "kernels/README.md"]
    broken = [
        (label(document), target)
        for document in documents
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", document.read_text())
        if not (document.parent / target).exists()
    ]
    assert broken == []
