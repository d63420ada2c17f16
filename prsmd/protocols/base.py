"""The seam to what a container's HTTP API speaks: values in, values out, no I/O.

A container's answer is untrusted: whatever it contains becomes outputs or a `ProviderError` that
carries the status and at most 500 characters of the text, never a header.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NoReturn, Protocol

from prsmd.domain.errors import ProviderError
from prsmd.domain.spec import Serving

from .json_members import NotAnObjectError, NotJsonError, Steps, Text, members

MAX_ERROR_TEXT = 500
EVENT_STREAM = "text/event-stream"
EVENT_ENDS = (b"\n\n", b"\r\r", b"\r\n\r\n")  # of an event: its lines and a blank one
JSON = "application/json"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ModelRequest:
    """One inference as the client means it; `inputs` and `parameters` are JSON, as it was sent."""

    model: str
    inputs: Text
    parameters: Text = b"{}"
    stream: bool = False


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ContainerRequest:
    """What to send to the container. `body` is in parts, so that large ones need not be copied."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: Sequence[Text]

    @property
    def size(self) -> int:
        """How many bytes the body has."""
        return sum(map(len, self.body))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ContainerAnswer:
    """What the container answered; `content_type` is without parameters and in lower case."""

    status: int
    content_type: str
    body: bytes | bytearray


class ServingProtocol(Protocol):
    """One kind of container API. Implementations hold no state."""

    name: str

    def health_path(self, serving: Serving) -> str:
        """Return the path that answers 200 when the container can serve."""
        ...

    def problem(self, serving: Serving) -> str | None:
        """Return why this protocol cannot serve such a spec, in words for its author; else None."""
        ...

    def request(self, request: ModelRequest, serving: Serving) -> ContainerRequest:
        """Translate an inference. Raise InvalidInputError for inputs it cannot express."""
        ...

    def outputs(self, answer: ContainerAnswer) -> Steps[memoryview]:
        """Return the outputs in a complete answer, as they stand there, in steps.

        Raise ProviderError for anything else.
        """
        ...


def path_problem(path: str) -> str | None:
    """Return what is wrong with an absolute URL path, or None."""
    if not path.startswith("/") or path.startswith("//"):
        return "must start with one slash"
    if len(path) > 1024:
        return "must be at most 1024 characters"
    if not path.isascii() or any(char <= " " or char in "?#\\\x7f" for char in path):
        return "must be a plain path without spaces, control characters, '?', '#' or '\\'"
    if any(segment in {".", ".."} for segment in path.lower().replace("%2e", ".").split("/")):
        return "must not contain '.' or '..' segments"
    return None


def member(answer: ContainerAnswer, name: str) -> Steps[memoryview | None]:
    """Return a member of the JSON object that a successful answer is; None: it has none of it.

    Raise ProviderError for anything else.
    """
    if answer.status != 200:
        refuse(answer, f"the model answered with status {answer.status}")
    try:
        found = yield from members(answer.body, (name,))
    except NotAnObjectError:
        return None
    except NotJsonError:
        refuse(answer, "the model's answer is not valid JSON")
    return found.found.get(name)


def refuse(answer: ContainerAnswer, why: str) -> NoReturn:
    """Raise the ProviderError for this answer, quoting the start of its text."""
    text = printable(answer.body)
    message = f"{why}: {text}" if text else why
    raise ProviderError(message, provider_status=answer.status, provider_text=text)


def printable(body: bytes | bytearray) -> str:
    """Return at most 500 characters of a body, without control characters."""
    text = body[: 4 * MAX_ERROR_TEXT].decode("utf-8", "replace")[:MAX_ERROR_TEXT]
    return "".join(char if char.isprintable() else " " for char in text).strip()
