"""Reads what a Docker engine answers: containers, images, log frames, pull messages.

Pure translation of the engine's JSON and bytes into prsmd's values. Does not talk to an engine and
trusts nothing: a container is ours only by instance label *and* name, since labels can also come
with an image.
"""

import dataclasses
import datetime as dt
import json
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from prsmd.domain.errors import (
    ImageUnavailableError,
    NoRoomForImageError,
    PrsmdError,
    PullBrokenOffError,
)
from prsmd.domain.image import registry_of
from prsmd.domain.replica import Endpoint

from .base import Container, ContainerState, Image, Labels, LogLine, PullProgress
from .docker_config import PORT_LABEL, container_name, read
from .references import split_reference

_UNQUALIFIED = "localhost/"  # how Podman names what was built or loaded without a server
_STATES = {"created": ContainerState.CREATED, "configured": ContainerState.CREATED} | dict.fromkeys(
    ("running", "paused", "restarting"), ContainerState.RUNNING
)
_STREAMS = {1: "stdout", 2: "stderr"}
_FRAME_HEADER = 8
_LONGEST_LINE = 64 * 1024
_FULL = "no space left on device"
_BROKEN_OFF = re.compile(
    r"(?i)\bEOF\b|connection re(?:set|fused)|time(?:d )?-?out|broken pipe|nothing was heard"
    r"|unreachable|no route to host|temporary failure|server misbehaving|too ?many ?requests"
    r"|HTTP status:? (?:429|5\d\d)|internal server error|bad gateway|service unavailable"
    r"|context (?:canceled|deadline exceeded)"
)
_LOGIN_WANTED = re.compile(
    r"(?i)no basic auth credentials|unauthorized|authentication required|access denied|forbidden"
)


def image(raw: Mapping[str, Any], reference: str) -> Image:
    """Return an inspected or listed image, pinned by repository digest, else by its id.

    One content can have several digests in one repository: a reference by digest keeps its own.
    """
    repository, tag = split_reference(reference)
    digests: list[str] = raw.get("RepoDigests") or []
    there = (text for text in digests if _same_repository(text.partition("@")[0], repository))
    pinned = sorted(there, key=lambda text: not text.endswith(f"@{tag}"))
    variables = (raw.get("Config") or {}).get("Env") or []
    return Image(
        reference=reference,
        digest=pinned[0] if pinned else raw["Id"],
        id=raw["Id"],
        size_bytes=raw["Size"],
        environment=dict(text.split("=", 1) for text in variables if "=" in text),
    )


def is_named(raw: Mapping[str, Any], reference: str) -> bool:
    """Tell whether an image bears this name, or this is its whole id.

    An engine also takes the beginning of an id for a name, of which no rule about names knows.
    """
    repository, tag = split_reference(reference)
    names = [*(raw.get("RepoTags") or []), *(raw.get("RepoDigests") or [])]
    parts = (split_reference(name.removeprefix(_UNQUALIFIED)) for name in names)
    return reference == raw["Id"] or any(
        tag == its_tag and _same_repository(its_repository, repository.removeprefix(_UNQUALIFIED))
        for its_repository, its_tag in parts
    )


def _same_repository(one: str, other: str) -> bool:
    short = (re.sub(r"^((index\.)?docker\.io/)?(library/)?", "", name) for name in (one, other))
    return len(set(short)) == 1


def listed_images(raw: Mapping[str, Any], used: Collection[str]) -> Iterator[Image]:
    """Yield a listed image once for each name it has; without any, under its id."""
    found = [image(raw, tag) for tag in raw.get("RepoTags") or [] if "<none>" not in tag]
    covered = {one.digest for one in found}
    digests = [text for text in raw.get("RepoDigests") or [] if "<none>" not in text]
    found += [image(raw, digest) for digest in digests if digest not in covered]
    for one in found or [image(raw, raw["Id"])]:
        yield dataclasses.replace(one, in_use=raw["Id"] in used)


def pull_failure(what: str, words: str, repository: str, *, asked_with: bool) -> PrsmdError:
    """Return the error for a pull that failed: whether to try again, and what else helps.

    `asked_with` tells that it was tried with a login of the organization's own.
    """
    if _FULL in words:
        return NoRoomForImageError(f"{what}: {words}")
    if _LOGIN_WANTED.search(words) is None and _BROKEN_OFF.search(words) is not None:
        return PullBrokenOffError(f"{what}: {words}")
    hint = _refused_login(words, repository) if asked_with else pull_refusal(words, repository)
    return ImageUnavailableError(f"{what}: {hint}")


def _refused_login(words: str, repository: str) -> str:
    if _LOGIN_WANTED.search(words) is None:
        return words
    return (
        f"{words} (the registry does not let the organization's login for {registry_of(repository)}"
        " read this image: check the name, and `prsmctl registry list`)"
    )


def pull_refusal(words: str, repository: str) -> str:
    """Return the engine's words for a pull that failed, and what to do where that is known."""
    if _LOGIN_WANTED.search(words) is None:
        return words
    registry = repository.partition("/")[0]
    host = registry if re.search(r"[.:]|^localhost$", registry) and "/" in repository else ""
    login = f"docker login {host}".rstrip()
    return (
        f"{words} (the registry does not let prsmd read this image: check the name, give your"
        f" organization a login with `prsmctl registry add`, or run `{login}` as the user that"
        " prsmd runs as, for everyone on this appliance)"
    )


def owner(name: str, texts: Mapping[str, str] | None, instance: str) -> Labels | None:
    """Return the labels of a container that this instance made, None for anyone else's."""
    labels = read(texts or {})
    if labels is None or labels.instance != instance:
        return None
    return labels if name.removeprefix("/") == container_name(labels.replica) else None


def container(raw: Mapping[str, Any], instance: str) -> Container | None:
    """Return an inspected container, or None when it is not this instance's."""
    texts = raw["Config"]["Labels"]
    labels = owner(raw["Name"], texts, instance)
    if labels is None:
        return None
    state = raw["State"]
    status = _STATES.get(state["Status"], ContainerState.EXITED)
    running, exited = status is ContainerState.RUNNING, status is ContainerState.EXITED
    return Container(
        id=raw["Id"],
        labels=labels,
        state=status,
        endpoint=_endpoint(raw, texts) if running else None,
        pid=state["Pid"] or None if running else None,
        exit_code=state["ExitCode"] if exited else None,
        out_of_memory=exited and bool(state.get("OOMKilled")),
        finished_at=(timestamp(state["FinishedAt"]) if exited else None),
    )


def _endpoint(raw: Mapping[str, Any], texts: Mapping[str, str]) -> Endpoint | None:
    networks = raw["NetworkSettings"]["Networks"] or {}
    addresses = [network["IPAddress"] for network in networks.values() if network["IPAddress"]]
    port = texts.get(PORT_LABEL, "")
    return Endpoint(addresses[0], int(port)) if addresses and port.isdigit() else None


def timestamp(text: str) -> float:
    """Return epoch seconds of an RFC 3339 time with up to nine decimals. Raise ValueError."""
    match = re.fullmatch(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d+)?(Z|[+-]\d\d:\d\d)", text)
    if match is None:
        raise ValueError(f"not a time: {text[:40]!r}")
    whole = dt.datetime.fromisoformat(match[1] + match[3].replace("Z", "+00:00"))
    return whole.timestamp() + float(match[2] or 0)


class LogFrames:
    """Turns the engine's multiplexed log stream into lines, however its bytes are cut.

    A frame is one byte of stream number, three of nothing, four of length, then a time, a space and
    text. A line longer than the engine's buffer comes in several frames without a line end.
    """

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._open: dict[str, LogLine] = {}

    def feed(self, data: bytes) -> Iterator[LogLine]:
        """Yield the lines that are complete with `data`."""
        self._bytes += data
        while len(self._bytes) >= _FRAME_HEADER:
            end = _FRAME_HEADER + int.from_bytes(self._bytes[4:_FRAME_HEADER], "big")
            if len(self._bytes) < end:
                return
            stream = _STREAMS.get(self._bytes[0], "stdout")
            payload = bytes(self._bytes[_FRAME_HEADER:end])
            del self._bytes[:end]
            yield from self._line(stream, payload)

    def rest(self) -> Iterator[LogLine]:
        """Yield what never got its line end."""
        yield from self._open.values()
        self._open.clear()

    def _line(self, stream: str, payload: bytes) -> Iterator[LogLine]:
        stamp, _, text = payload.decode(errors="replace").partition(" ")
        begun = self._open.pop(stream, None)
        line = LogLine(
            at=begun.at if begun else timestamp(stamp.rstrip()),
            stream=stream,
            text=(begun.text if begun else "") + text.rstrip("\r\n"),
        )
        if payload.endswith(b"\n") or len(line.text) >= _LONGEST_LINE:
            yield line
        else:
            self._open[stream] = line


class PullMessages:
    """Adds up a pull over its layers. `error` is why it failed, in the engine's words."""

    def __init__(self) -> None:
        self.error: str | None = None
        self._layers: dict[str, tuple[int, int]] = {}
        self._bytes = bytearray()

    def feed(self, data: bytes) -> Iterator[PullProgress]:
        """Yield how far the pull is after each message that is complete with `data`."""
        self._bytes += data
        *complete, rest = bytes(self._bytes).split(b"\n")
        self._bytes = bytearray(rest)
        for line in complete:
            if line.strip():
                yield self._progress(json.loads(line))

    def _progress(self, message: Mapping[str, Any]) -> PullProgress:
        self.error = message.get("error") or self.error
        status, layer = str(message.get("status", "")), message.get("id", "")
        detail = message.get("progressDetail") or {}
        _, total = self._layers.get(layer, (0, 0))
        if status in {"Downloading", "Loading layer"}:
            left = max(detail.get("total", 0), 0)  # of a layer that is taken up again, the rest
            total = max(total, left)
            self._layers[layer] = total - left + max(detail.get("current", 0), 0), total
        elif status in {"Download complete", "Pull complete", "Extracting"} and layer:
            self._layers[layer] = total, total
        known = [pair for pair in self._layers.values() if pair[1] > 0]
        return PullProgress(
            status=status,
            done_bytes=sum(done for done, _ in known),
            total_bytes=sum(total for _, total in known) or None,
        )
