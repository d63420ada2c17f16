"""The rules of the house that neither ruff nor import contracts can check."""

import ast
import re
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

from prsmd.reloadable import RELOADED, RESTART
from prsmd.settings import Settings

ROOT = Path(__file__).parents[1]
SOURCES = sorted(
    path.relative_to(ROOT)
    for package in ("prsmd", "prsm_sdk")
    for path in (ROOT / package).rglob("*.py")
)
PURE = [path for path in SOURCES if path.parts[:2] in {("prsmd", "core"), ("prsmd", "domain")}]

MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 50
MAX_PARAMETERS = 6
SAYS_NOTHING = {"utils", "util", "helpers", "helper", "common", "misc", "manager", "managers"}
NOUN_LAYERS = ("store", "service", "api", "cli")
OTHER_NOUN = {"connection"}  # the store's is to its database, the API's are its clients'

# Clocks, I/O, concurrency and logging: a decision gets what they would tell it as an argument.
IMPURE = {
    *("asyncio", "concurrent", "threading", "multiprocessing", "time", "datetime"),
    *("io", "os", "pathlib", "shutil", "tempfile", "glob", "select", "socket", "ssl", "subprocess"),
    *("logging", "warnings", "random", "http", "urllib", "sqlite3", "importlib"),
}
IMPURE_CALLS = {"open", "print", "input", "exec", "eval"}

# Where a foreign library may be imported; everyone else sees the driver's own words.
HOME_OF = {
    "docker": ("prsmd/runtime/docker*.py",),
    "pynvml": ("prsmd/devices/nvml*.py",),
    "psutil": ("prsmd/devices/host.py",),
    "aiosqlite": ("prsmd/store/*.py",),
    "cryptography": ("prsmd/store/sealing.py", "prsmd/core/signing.py"),
    "jwt": ("prsmd/service/oidc.py",),
    "sqlite3": ("prsmd/store/*.py",),
}


def tree(path: Path) -> ast.Module:
    return ast.parse((ROOT / path).read_text(encoding="utf-8"))


def foreign_imports(path: Path) -> Iterator[tuple[int, str]]:
    """Line and top module of each absolute import, wherever in the file it stands."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, name.name.split(".")[0]) for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.lineno, node.module.split(".")[0]


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not is_overload(node):
            yield node


def is_overload(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Tell whether it is only one more signature of the function that follows."""
    return any(isinstance(d, ast.Name) and d.id == "overload" for d in function.decorator_list)


def parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    given = function.args
    names = [a.arg for a in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
    return len([name for name in names if name not in {"self", "cls"}])


def test_there_is_something_to_look_at():
    assert len(SOURCES) > 20
    assert len(PURE) > 5


def test_decisions_import_no_clock_no_io_and_no_logging():
    wrong = [
        f"{path}:{line} imports {module}"
        for path in PURE
        for line, module in foreign_imports(path)
        if module in IMPURE
    ]
    assert wrong == []


def test_decisions_are_synchronous_and_call_nothing_that_reads_or_writes():
    wrong = [
        f"{path}:{node.lineno}"
        for path in PURE
        for node in ast.walk(tree(path))
        if isinstance(node, ast.AsyncFunctionDef | ast.Await)
        or (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in IMPURE_CALLS
        )
    ]
    assert wrong == []


def test_foreign_libraries_stay_in_their_drivers():
    wrong = [
        f"{path}:{line} imports {module}"
        for path in SOURCES
        for line, module in foreign_imports(path)
        if module in HOME_OF and not any(fnmatch(str(path), home) for home in HOME_OF[module])
    ]
    assert wrong == []


def test_no_file_is_too_long_to_read():
    lengths = {path: (ROOT / path).read_text(encoding="utf-8").count("\n") for path in SOURCES}
    assert {str(p): n for p, n in lengths.items() if n > MAX_FILE_LINES} == {}


def test_no_function_is_too_long_to_read():
    wrong = {
        f"{path}:{function.lineno} {function.name}": length
        for path in SOURCES
        for function in functions(path)
        if (length := (function.end_lineno or 0) - function.lineno + 1) > MAX_FUNCTION_LINES
    }
    assert wrong == {}


def test_functions_take_few_parameters_or_say_why_not():
    wrong = []
    for path in SOURCES:
        lines = (ROOT / path).read_text(encoding="utf-8").splitlines()
        for function in functions(path):
            reason = re.search(
                r"noqa: [A-Z0-9, ]*PLR0913[A-Z0-9, ]* - \w", lines[function.lineno - 1]
            )
            if parameters(function) > MAX_PARAMETERS and not reason:
                wrong.append(f"{path}:{function.lineno} {function.name}")
    assert wrong == []


def test_file_names_say_something():
    assert [str(path) for path in SOURCES if SAYS_NOTHING & {*path.parts, path.stem}] == []


def test_a_noun_has_the_same_file_name_in_every_layer():
    files = {path.stem: str(path) for path in SOURCES if path.parts[1] in NOUN_LAYERS}
    twice = [
        f"{files[s]} and {files[s + 's']}"
        for s in files
        if s + "s" in files and s not in OTHER_NOUN
    ]
    assert twice == []


def test_nothing_waits_with_a_call_that_can_swallow_a_cancellation():
    """`asyncio.wait_for` does on Python 3.11, and a SIGTERM was lost by it; use asyncio.timeout."""
    found = [
        f"{path}:{node.lineno}"
        for path in SOURCES
        if path.parts[0] == "prsmd"
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Attribute) and node.attr == "wait_for"
    ]
    assert found == []


def test_what_is_left_to_do_is_named_in_the_documentation():
    wrong = []
    for path in SOURCES:
        for number, line in enumerate((ROOT / path).read_text(encoding="utf-8").splitlines(), 1):
            if re.search(r"\b(TODO|FIXME|XXX|HACK)\b", line):
                named = re.search(r"docs/[\w./-]+\.md", line)
                if named is None or not (ROOT / named[0]).is_file():
                    wrong.append(f"{path}:{number}")
    assert wrong == []


def test_every_setting_is_reloaded_or_needs_a_restart():
    """A new setting gets its line in prsmd/reloadable.py, and a part that takes it if any can."""
    names = {
        f"{section}.{name}"
        for section, field in Settings.model_fields.items()
        for name in type(field.default).model_fields
    }

    assert names == RELOADED | RESTART
    assert not RELOADED & RESTART
