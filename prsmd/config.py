"""Where settings come from: one TOML file, `conf.d` drop-ins, `PRSMD_SECTION__KEY`, flags.

Later wins. What may be set is `prsmd/settings/`; here each problem gets its file and line, and an
unknown key the nearest known one. A secret is in a file or a systemd credential.
"""

import difflib
import os
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from prsmd.settings import Section, Settings

DEFAULT_FILE = Path("/etc/prsmd/prsmd.toml")
_ENVIRONMENT_PREFIX = "PRSMD_"


class ConfigurationError(Exception):
    """Settings that cannot be used. `problems` has one line each: where, what and what to do."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


def load(
    file: Path | None, environment: Mapping[str, str], overrides: Sequence[str] = ()
) -> Settings:
    """Return the settings of a file, its `conf.d`, the environment and `section.key=value` flags.

    `file` None means the default file, which may be absent; a named one must exist.
    Raise ConfigurationError with every problem found.
    """
    sources = _Sources()
    for path in files_of(file):
        sources.add_file(path)
    for name, value in sorted(environment.items()):
        if name.startswith(_ENVIRONMENT_PREFIX) and "__" in name:
            key = name.removeprefix(_ENVIRONMENT_PREFIX).lower().replace("__", ".", 1)
            sources.add_value(key, value, f"environment {name}")
    for override in overrides:
        key, _, value = override.partition("=")
        sources.add_value(key, value, f"--set {key}")
    try:
        return Settings.model_validate(sources.merged)
    except ValidationError as error:
        raise ConfigurationError([sources.describe(e["loc"], e) for e in error.errors()]) from None


def files_of(file: Path | None) -> list[Path]:
    """Return the files that settings are read from; a named one must exist."""
    main = file or DEFAULT_FILE
    if not main.exists():
        if file is not None:
            raise ConfigurationError([f"{file}: no such file"])
        return []
    return [main, *sorted((main.parent / "conf.d").glob("*.toml"))]


class _Sources:
    """Merges the sources and remembers where each key came from."""

    def __init__(self) -> None:
        self.merged: dict[str, Any] = {}
        self._origin: dict[tuple[str, ...], str] = {}

    def add_file(self, path: Path) -> None:
        """Merge one TOML file; a key of a later file replaces that of an earlier one."""
        try:
            text = path.read_text(encoding="utf-8")
            content = tomllib.loads(text)
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise ConfigurationError([f"{path}: {error}"]) from None
        for section, values in content.items():
            self._origin[(section,)] = f"{path}:{_line_of(text, section, None)}"
            if not isinstance(values, dict):
                self.merged[section] = values
                continue
            if not isinstance(self.merged.get(section), dict):
                self.merged[section] = {}
            for key, value in values.items():
                self.merged[section][key] = value
                self._origin[section, key] = f"{path}:{_line_of(text, section, key)}"

    def add_value(self, dotted: str, value: str, origin: str) -> None:
        """Merge one value given as text; TOML where it parses as TOML, a string otherwise."""
        section, _, key = dotted.partition(".")
        try:
            parsed: Any = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            parsed = value
        if not key:
            raise ConfigurationError([f"{origin}: write section.key=value"])
        values = self.merged.setdefault(section, {})
        if not isinstance(values, dict):
            values = self.merged[section] = {}
        values[key] = parsed
        self._origin[section, key] = origin
        self._origin.setdefault((section,), origin)

    def describe(self, location: tuple[int | str, ...], error: Any) -> str:
        """Return `where: section.key: what is wrong (and the nearest known key)`."""
        path = tuple(str(part) for part in location)
        where = self._origin.get(path[:2]) or self._origin.get(path[:1]) or "configuration"
        message = error["msg"].removeprefix("Value error, ")
        if error["type"] == "extra_forbidden":
            message = "unknown key" + _suggestion(path)
        return f"{where}: {'.'.join(path)}: {message}"


def _suggestion(path: tuple[str, ...]) -> str:
    known = list(_model_at(path[:-1]).model_fields)
    near = difflib.get_close_matches(path[-1], known, n=1)
    return f"; did you mean {near[0]}?" if near else f"; known are {', '.join(known)}"


def _model_at(path: tuple[str, ...]) -> type[BaseModel]:
    """Return the model whose keys stand at `path`; positions in arrays of tables are no keys."""
    model: type[BaseModel] = Settings
    for part in path:
        if part in model.model_fields:
            kind = model.model_fields[part].annotation
            inner = [kind, *get_args(kind)]
            model = next(
                (k for k in inner if isinstance(k, type) and issubclass(k, Section)), model
            )
    return model


def _line_of(text: str, section: str, key: str | None) -> int:
    """Return the line that names a section (`key` None) or a key of it; 1 if none plainly does."""
    table = ""
    for number, line in enumerate(text.splitlines(), start=1):
        stripped = line.strip()
        if stripped.startswith("["):
            table = stripped.partition("#")[0].strip(" []")
            named = table
        else:
            named = ".".join(filter(None, (table, stripped.partition("=")[0].strip())))
        if named == (f"{section}.{key}" if key is not None else section):
            return number
        if key is None and named.startswith(f"{section}."):
            return number
    return 1


def credential(name: str) -> Path | None:
    """Return the path of a systemd credential, or None where systemd passed none of that name."""
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    path = Path(folder, name) if folder else None
    return path if path is not None and path.is_file() else None
