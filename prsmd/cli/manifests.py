"""Reads declarative files: YAML or JSON, each document one model's whole request.

Of YAML only what JSON can hold is taken: no dates, no `yes` for true, no tags. Every problem names
the file, the document and the line.
"""

import dataclasses
import json
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from .session import UsageError

if TYPE_CHECKING:
    import yaml

_SUFFIXES = (".yaml", ".yml", ".json")
_MOST_BYTES = 1 << 20  # of one file
_MOST_VALUES = 10_000  # of one document, with everything that its aliases stand for
_DEEPEST = 50


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """One model as a file wants it. `rollout` says how it is to be updated, None: as by default."""

    file: str
    document: int
    body: dict[str, Any]
    rollout: dict[str, Any] | None

    @property
    def name(self) -> str:
        """The model's name."""
        return str(self.body["model_name"])

    @property
    def place(self) -> str:
        """Where it stands."""
        return f"{self.file}, document {self.document}"


def read_manifests(names: Sequence[str]) -> list[Manifest]:
    """Return every document of these files and folders (`-`: standard input), in their order.

    Raises:
        UsageError: One cannot be used, or a model stands in two.
    """
    found: list[Manifest] = []
    for name in names:
        for file in _files(name):
            found += _manifests(file)
    places: dict[str, str] = {}
    for item in found:
        if item.name in places:
            raise UsageError(f"{item.place}: {item.name} stands in {places[item.name]} already")
        places[item.name] = item.place
    if not found:
        raise UsageError(f"{', '.join(names)}: there is no document in it")
    return found


def _files(name: str) -> list[str]:
    """Return the file itself, or the files that a folder holds, by name."""
    folder = Path(name)
    if name == "-" or not folder.is_dir():
        return [name]
    files = [path for path in folder.iterdir() if path.suffix in _SUFFIXES and path.is_file()]
    return sorted(str(path) for path in files if not path.name.startswith("."))


def _manifests(file: str) -> Iterator[Manifest]:
    text = _read(file)
    documents = _json(file, text) if file.endswith(".json") else _yaml(file, text)
    for number, body in documents:
        place = f"{file}, document {number}"
        if not isinstance(body, dict):
            raise UsageError(f"{place}: must be a model's request, an object")
        if not isinstance(body.get("model_name"), str) or not body["model_name"]:
            raise UsageError(f"{place}: model_name: is required, and must be text")
        rollout = body.pop("rollout", None)
        if rollout is not None and not isinstance(rollout, dict):
            raise UsageError(f"{place}: rollout: must be an object")
        yield Manifest(file=file, document=number, body=body, rollout=rollout)


def _read(file: str) -> str:
    try:
        if file == "-":
            raw = sys.stdin.buffer.read(_MOST_BYTES + 1)
        else:
            with Path(file).open("rb") as stream:
                raw = stream.read(_MOST_BYTES + 1)
        if len(raw) > _MOST_BYTES:
            raise UsageError(f"{file} is larger than {_MOST_BYTES >> 20} MiB")
        return raw.decode("utf-8-sig")
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{file} is not UTF-8") from error


def _json(file: str, text: str) -> list[tuple[int, Any]]:
    """Return the object of a JSON file, or those of its array."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, value in pairs:
            if name in found:
                raise ValueError(f"the field {name} stands twice in one object")
            found[name] = value
        return found

    def refuse(constant: str) -> NoReturn:
        raise ValueError(f"{constant} is not a JSON number")

    try:
        body = json.loads(text, object_pairs_hook=unique, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{file} is not JSON: {_words(error)}") from error
    return list(enumerate(body if isinstance(body, list) else [body], 1))


def _words(error: Exception) -> str:
    return "it is nested too deeply" if isinstance(error, RecursionError) else str(error)


def _yaml(file: str, text: str) -> list[tuple[int, Any]]:
    """Return the documents of a YAML file with their numbers; empty ones are passed over."""
    import yaml

    try:
        nodes = list(yaml.compose_all(text, Loader=_loader()))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = "" if mark is None else f", line {mark.line + 1}"
        raise UsageError(f"{file}{where}: is not YAML: {error.problem}") from error
    except (yaml.YAMLError, RecursionError) as error:
        raise UsageError(f"{file} is not YAML: {_words(error)}") from error
    return [
        (number, _Document(f"{file}, document {number}").value(node))
        for number, node in enumerate(nodes, 1)
        if not (isinstance(node, yaml.ScalarNode) and node.value == "")
    ]


def _loader() -> "type[yaml.SafeLoader]":
    """Return a loader that takes for numbers, true, false and null what JSON does, and ~."""
    import re

    import yaml

    class Loader(yaml.SafeLoader):
        yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - PyYAML's own way

    number = r"-?(?:0|[1-9][0-9]*)"
    exact = [
        ("bool", r"true|false", "tf"),
        ("null", r"null|~|", ["n", "~", ""]),
        ("int", number, "-0123456789"),
        ("float", rf"{number}(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?", "-0123456789"),
    ]
    for kind, pattern, first in exact:
        Loader.add_implicit_resolver(
            f"tag:yaml.org,2002:{kind}", re.compile(rf"(?:{pattern})\Z"), list(first)
        )
    return Loader


class _Document:
    """One YAML document being turned into what JSON can hold."""

    def __init__(self, place: str) -> None:
        self._place = place
        self._values = 0

    def value(self, node: Any, depth: int = 0) -> Any:
        """Return what a node stands for, aliases included."""
        import yaml

        self._values += 1
        if self._values > _MOST_VALUES or depth > _DEEPEST:
            self._refuse(node, "is too large or nested too deeply, with what its aliases stand for")
        if isinstance(node, yaml.MappingNode) and node.tag == "tag:yaml.org,2002:map":
            return self._mapping(node, depth)
        if isinstance(node, yaml.SequenceNode) and node.tag == "tag:yaml.org,2002:seq":
            return [self.value(item, depth + 1) for item in node.value]
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node)
        return self._refuse(node, f"the tag {node.tag} has no meaning here")

    def _mapping(self, node: Any, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, inner in node.value:
            name = self.value(key, depth + 1)
            if not isinstance(name, str):
                self._refuse(key, "a field's name must be text; put it in quotes")
            if name in found:
                self._refuse(key, f"the field {name} stands twice in one object")
            found[name] = self.value(inner, depth + 1)
        return found

    def _scalar(self, node: Any) -> Any:
        kind, text = node.tag.removeprefix("tag:yaml.org,2002:"), node.value
        match kind:
            case "str":
                return text
            case "bool" if text in {"true", "false"}:
                return text == "true"
            case "null" if text in {"null", "~", ""}:
                return None
            case "int" | "float" if _is_number(text):
                return json.loads(text)
            case _:
                return self._refuse(node, f"{text[:50]!r} as {kind} has no meaning here")

    def _refuse(self, node: Any, problem: str) -> NoReturn:
        raise UsageError(f"{self._place}, line {node.start_mark.line + 1}: {problem}")


def _is_number(text: str) -> bool:
    """Tell whether JSON has this number too, and can hold it."""
    try:
        return math.isfinite(json.loads(text))
    except (ValueError, TypeError, OverflowError):
        return False
