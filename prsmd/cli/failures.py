"""What went wrong, told to a person on stderr, and to a script as exit code."""

import sys

from prsm_sdk import errors

from .output import duration, printable
from .session import UsageError

FAILED, USAGE, NOT_RUNNING, NOT_FOUND, DENIED, LIMITED, TIMED_OUT = 1, 2, 3, 4, 5, 6, 7
CONFIGURATION = 78  # EX_CONFIG of sysexits.h

_MODELS = "prsmctl list shows what there is."
_CODES = (  # the first that fits decides
    (UsageError, USAGE, ""),
    (errors.ConfigurationError, CONFIGURATION, ""),
    (
        errors.ConnectionCutError,
        NOT_RUNNING,
        "Look at what became of it (prsmctl status) before you try again.",
    ),
    (
        errors.DaemonUnreachableError,
        NOT_RUNNING,
        "Is the daemon running (systemctl status prsmd)? Another one is named with --url.",
    ),
    (errors.ClientTimeoutError, TIMED_OUT, "Wait longer with --timeout, or look at its status."),
    (errors.InferenceTimeoutError, TIMED_OUT, ""),
    (
        errors.PreconditionFailedError,
        FAILED,
        "Somebody else changed it: prsmctl versions and prsmctl diff show what.",
    ),
    (errors.ModelNotFoundError, NOT_FOUND, _MODELS),
    (errors.DeploymentNotFoundError, NOT_FOUND, _MODELS),
    (
        errors.NotFoundError,
        NOT_FOUND,
        "A command's own list shows what there is: prsmctl key list.",
    ),
    (
        errors.InvalidApiKeyError,
        DENIED,
        "Give a valid key in PRSMD_API_KEY or with --api-key-file.",
    ),
    (errors.PermissionDeniedError, DENIED, ""),
    (errors.TooManyRequestsError, LIMITED, ""),
    (errors.InvalidInputError, USAGE, ""),
)
_SOCKET_HINT = "Join the group that owns the socket (prsmd), or use --url with an API key."


def report(error: errors.PRSMError) -> int:
    """Print an error with its reason, the next step and the request id; return the exit code."""
    code, hint = _code_and_hint(error)
    if isinstance(error, errors.PermissionDeniedError) and error.status is None:
        hint = _SOCKET_HINT
    fields = _wrong_fields(error)
    message = f"{len(fields)} fields are wrong:" if fields else error.message
    lines = [f"prsmctl: {message}", *fields, *_last_lines(error)]
    if error.retry_after is not None and not error.details.get("permanent"):
        hint = hint or f"Try again in {duration(error.retry_after)}."
    if hint:
        lines.append(hint)
    if error.request_id:
        lines.append(f"request id: {error.request_id}")
    print("\n".join(printable(line) for line in lines), file=sys.stderr)
    return code


def exit_code(error: errors.PRSMError) -> int:
    """Return the exit code that tells a script of an error."""
    return _code_and_hint(error)[0]


def _code_and_hint(error: errors.PRSMError) -> tuple[int, str]:
    return next(((c, h) for kind, c, h in _CODES if isinstance(error, kind)), (FAILED, ""))


def _wrong_fields(error: errors.PRSMError) -> list[str]:
    """Return one line for each of several wrong fields; of one, the message says it all."""
    if not isinstance(error, errors.InvalidInputError) or len(error.validation_errors) < 2:
        return []
    return [f"  {item.get('field')}: {item.get('error')}" for item in error.validation_errors]


def _last_lines(error: errors.PRSMError) -> list[str]:
    for name, title in (("log_tail", "its last lines:"), ("evidence", "because:")):
        lines = error.details.get(name)
        if isinstance(lines, list) and lines:
            return [title, *(f"  {line}" for line in lines)]
    return []
