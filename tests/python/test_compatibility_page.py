"""docs/compatibility.md keeps its word: every row names tests that exist, and no public parameter is without a row."""

import ast
import importlib
import inspect
import re
from functools import cache
from pathlib import Path
from typing import get_overloads

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "compatibility.md"
HEADER = ("what the documentation says", "here", "test")
MODULES = (
    "mindspore_serving.server",
    "mindspore_serving.server.distributed",
    "mindspore_serving.server.master.context",
    "mindspore_serving.server.register",
    "mindspore_serving.client",
    "mindspore_serving.master",
    "mindspore_serving.worker",
    "mindspore_serving.worker.distributed",
)
REFERENCE = re.compile(r"`(tests/[^`:]+)::([^`]+)`")


def tables():
    """The rows of each table, as tuples of cells with their line numbers."""
    rows, inside = [], False
    for number, line in enumerate(PAGE.read_text().splitlines(), 1):
        if not line.startswith("|"):
            inside = False
            continue
        cells = tuple(cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1])
        if not inside:
            assert cells == HEADER, f"line {number}: a table without the header {HEADER}"
            inside = True
        elif not set("".join(cells)) <= set("-:"):
            rows.append((number, cells))
    return rows


ROWS = tables()


@cache
def known_tests(path):
    """The names of a file's tests: functions, Class::method, Suite.Name; with what a case's name may be made of."""
    text = (ROOT / path).read_text()
    if path.endswith(".cc"):
        return {
            f"{suite}.{name}": set() for suite, name in re.findall(r"^TEST(?:_[FP])?\((\w+),\s*(\w+)\)", text, re.M)
        }
    names = {}
    tree = ast.parse(text)
    cases = {str(node.value) for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            names[node.name] = cases if node.decorator_list else set()
        elif isinstance(node, ast.ClassDef):
            for method in node.body:
                if isinstance(method, ast.FunctionDef) and method.name.startswith("test_"):
                    names[f"{node.name}::{method.name}"] = cases if method.decorator_list else set()
    return names


def test_the_page_has_rows():
    assert len(ROWS) > 150


@pytest.mark.parametrize(("number", "cells"), ROWS, ids=[f"line {number}" for number, _ in ROWS])
def test_every_row_names_tests_that_exist(number, cells):
    assert len(cells) == 3 and all(cells), f"line {number}: a cell is empty"
    documented, here, tests = cells
    if not here.startswith("the same"):
        assert len(here.split()) >= 4, f"line {number}: what is done differently, and why?"
    found = REFERENCE.findall(tests)
    assert found, f"line {number}: '{documented}' has no test"
    assert REFERENCE.sub("", tests).strip(" ,") == "", f"line {number}: the last column has more than tests"
    for path, name in found:
        assert (ROOT / path).is_file(), f"line {number}: there is no file {path}"
        plain, _, case = name.partition("[")
        known = known_tests(path)
        assert plain in known, f"line {number}: {path} has no test {plain}"
        if case:
            assert case.removesuffix("]") in known[plain], f"line {number}: {path}::{plain} has no case [{case}"


# ---- nothing public is left out


def parameters_of(function):
    """The names of what a caller may pass, overloads together."""
    names = []
    for one in get_overloads(function) or [function]:
        signature = inspect.signature(one)
        names += [
            parameter.name
            for parameter in signature.parameters.values()
            if parameter.name != "self" and parameter.kind is not parameter.VAR_KEYWORD
        ]
        if any(parameter.kind is parameter.VAR_KEYWORD for parameter in signature.parameters.values()):
            names.append("**")
    return list(dict.fromkeys(names))


def documented_parameters(item):
    """The names under Args in a docstring, for what takes keywords of any name."""
    text = inspect.getdoc(item).partition("Args:\n")[2].partition("\n\n")[0]
    return re.findall(r"^    (\w+) \(", text, re.M)


# Made by calls of ours and handed to users, who never make them.
HANDED_OUT = ("register.Model", "client.PendingResult")


def calls_of(prefix, name, item):
    """What the page has to have for a public name, such as "server.start_grpc_server(address)"."""
    if inspect.ismodule(item):
        return []
    title = f"{prefix}.{name}"
    callables = [] if title in HANDED_OUT else [(title, item.__init__ if inspect.isclass(item) else item)]
    if inspect.isclass(item):
        callables += [
            (f"{prefix}.{name}.{attribute}", method)
            for attribute, method in vars(item).items()
            if inspect.isfunction(method) and not attribute.startswith("_")
        ]
    calls = []
    for title, function in callables:
        names = parameters_of(function)
        if "**" in names:
            names = documented_parameters(item)
            assert names, f"{title} takes keywords, and its docstring names none"
        calls += [f"{title}({parameter})" for parameter in names] or [f"{title}()"]
    return calls


def public_calls():
    calls = []
    for path in MODULES:
        module = importlib.import_module(path)
        names = getattr(module, "__all__", None) or [
            name for name, item in vars(module).items() if inspect.isfunction(item) and not name.startswith("_")
        ]
        for name in names:
            calls += calls_of(path.rpartition(".")[2], name, getattr(module, name))
    return calls


def test_what_is_public_is_found():
    calls = public_calls()
    for call in (
        "server.stop()",
        "server.ServableStartConfig(num_parallel_workers)",
        "register.AclOptions(input_shape)",
        "register.call_servable(subgraph)",
        "register.PipelineServable.run(args)",
        "register.Context.append_device_info(device_info)",
        "worker.start_servable_in_master(device_id)",
        "client.Client.infer(instances)",
    ):
        assert call in calls


@pytest.mark.parametrize("call", public_calls())
def test_every_public_parameter_has_a_row(call):
    assert any(f"`{call}`" in documented for _, (documented, _, _) in ROWS), f"add a row that begins with `{call}`"
