"""Bodies that are too large for memory: a file, or a stream that can be read once."""

import contextlib
import dataclasses
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from .errors import ConfigurationError


@dataclasses.dataclass(frozen=True, slots=True)
class Upload:
    """What is sent as a body: a path, opened anew for each attempt, or an open binary file."""

    source: Path | BinaryIO
    content_type: str = "application/x-tar"

    @property
    def repeatable(self) -> bool:
        """True when it can be sent again from its beginning."""
        return isinstance(self.source, Path)

    @contextlib.contextmanager
    def opened(self) -> Iterator[tuple[BinaryIO, int | None]]:
        """Give the content and its size in bytes, None where that is not known.

        Raises:
            ConfigurationError: The file cannot be read.
        """
        if not isinstance(self.source, Path):
            yield self.source, None
            return
        try:
            file = self.source.open("rb")
        except OSError as error:
            raise ConfigurationError(f"{self.source} cannot be read: {error.strerror}") from error
        with file:
            state = os.fstat(file.fileno())
            yield file, state.st_size if stat.S_ISREG(state.st_mode) else None
