"""What a command runs with: the daemon to talk to and the form of its output."""

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from prsm_sdk import calls
from prsm_sdk.errors import ConfigurationError, DeploymentNotFoundError, NotFoundError
from prsm_sdk.models import DeploymentStatus
from prsm_sdk.sync import SyncClient
from prsm_sdk.target import Target

from .output import printable

_DEPLOYMENT_PREFIX = "deploy_"


class UsageError(ConfigurationError):
    """The command line is wrong in a way that only the command itself can see."""

    default_code = "USAGE"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One run of prsmctl. `timeout` is what the user gave, in seconds, or None."""

    client: SyncClient
    as_json: bool
    timeout: float | None

    @classmethod
    def open(cls, args: argparse.Namespace) -> Self:
        """Return the session that the global options ask for. Connects to nothing yet."""
        url = f"unix://{Path(args.socket).absolute()}" if args.socket else args.url
        target = Target.resolve(url, _key_in(args.api_key_file), None, args.organization)
        client = SyncClient(target, args.timeout, patience=0)
        return cls(client=client, as_json=args.output == "json", timeout=args.timeout)

    def status_of(self, name: str) -> DeploymentStatus:
        """Return the status of what is named by deployment id, model id or model name."""
        refusal: NotFoundError | None = None
        if name.startswith(_DEPLOYMENT_PREFIX):
            try:
                return self.client.send(calls.deployment_status(name))
            except DeploymentNotFoundError as error:
                refusal = error
        try:
            model = self.client.send(calls.get_custom_model(name))
        except NotFoundError as error:
            raise refusal or error from None
        return self.client.send(calls.deployment_status(model.deployment_id))

    def deployment_id_of(self, name: str) -> str:
        """Return the id of the deployment that is named in one of the three ways."""
        return self.status_of(name).deployment_id


def note(text: str) -> None:
    """Tell a person something that is not the command's output."""
    print(text, file=sys.stderr)


def explain(message: str, reasons: Sequence[str]) -> None:
    """Tell why something that was accepted cannot be done, or not fully, for now."""
    for line in (message, *(f"  {reason}" for reason in reasons)):
        if line:
            note(printable(line))


def _key_in(path: str | None) -> str | None:
    if path is None:
        return None
    try:
        key = Path(path).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it holds no key"
        raise ConfigurationError(f"the API key cannot be read from {path}: {reason}") from error
    if not key:
        raise ConfigurationError(f"the API key file {path} is empty")
    return key
