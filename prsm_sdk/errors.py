"""One class for each code of the API, and for what can go wrong before an answer arrives.

`error_from_answer` is the only place that turns an HTTP answer into an error.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar


class PRSMError(Exception):
    """Base of every error of this package.

    `code` is the API's code, `status` the HTTP status (None when there was no answer),
    `retry_after` seconds after which trying again can help (None: the server did not say).
    """

    default_code: ClassVar[str] = "ERROR"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        status: int | None = None,
        details: Mapping[str, Any] | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code
        self.status = status
        self.details: Mapping[str, Any] = details or {}
        self.request_id = request_id
        self.retry_after = retry_after

    def __str__(self) -> str:
        return self.message


class ConfigurationError(PRSMError, ValueError):
    """The address, the key or a file that holds it cannot be used; nothing was sent."""

    default_code = "CONFIGURATION"


class DaemonUnreachableError(PRSMError, ConnectionError):
    """No connection to the daemon could be made; nothing was sent."""

    default_code = "DAEMON_UNREACHABLE"


class ConnectionCutError(DaemonUnreachableError):
    """The connection ended before the answer did; the request may have been carried out."""

    default_code = "CONNECTION_CUT"


class ClientTimeoutError(PRSMError, TimeoutError):
    """The client stopped waiting; the request may still be carried out."""

    default_code = "CLIENT_TIMEOUT"


class UnexpectedAnswerError(PRSMError):
    """What answered does not speak this API."""

    default_code = "UNEXPECTED_ANSWER"


class DeploymentFailedError(PRSMError):
    """The deployment that was waited for failed; `message` says why, in the server's words."""

    default_code = "DEPLOYMENT_FAILED"


class InvalidInputError(PRSMError):
    """The request is wrong."""

    default_code = "INVALID_INPUT"

    @property
    def validation_errors(self) -> Sequence[Mapping[str, Any]]:
        """Return one entry for each wrong field: `field`, `error`, `provided_value`."""
        errors = self.details.get("validation_errors")
        return [e for e in errors if isinstance(e, Mapping)] if isinstance(errors, list) else []


class InvalidApiKeyError(PRSMError):
    """No key, or one that is unknown, expired, revoked or mistyped."""

    default_code = "INVALID_API_KEY"


class PermissionDeniedError(PRSMError):
    """The caller is known but may not do this."""

    default_code = "INSUFFICIENT_PERMISSIONS"


class NotFoundError(PRSMError):
    """There is no such thing, or none that the caller may know of."""

    default_code = "NOT_FOUND"


class ModelNotFoundError(NotFoundError):
    """No such model, or none that the caller may know of."""

    default_code = "MODEL_NOT_FOUND"


class DeploymentNotFoundError(NotFoundError):
    """No such deployment, or none that the caller may know of."""

    default_code = "DEPLOYMENT_NOT_FOUND"


class ConflictError(PRSMError):
    """The request contradicts what is already there."""

    default_code = "CONFLICT"


class PreconditionFailedError(PRSMError):
    """The model is no longer at the revision that `if_match` names; nothing was changed."""

    default_code = "PRECONDITION_FAILED"

    @property
    def current_revision(self) -> int | None:
        """The revision that it is at now."""
        found = self.details.get("current_revision")
        return found if isinstance(found, int) else None


class RequestTooLargeError(PRSMError):
    """The request is larger than the server accepts."""

    default_code = "REQUEST_TOO_LARGE"


class TooManyRequestsError(PRSMError):
    """Base of the refusals that time, or a higher limit, would lift."""


class RateLimitExceededError(TooManyRequestsError):
    """Too many requests in a short time."""

    default_code = "RATE_LIMIT_EXCEEDED"


class QuotaExceededError(TooManyRequestsError):
    """A limit for a day, or for ever, is used up."""

    default_code = "QUOTA_EXCEEDED"


class QueueFullError(TooManyRequestsError):
    """All replicas are busy and the bounded queue is full."""

    default_code = "QUEUE_FULL"


class ProviderError(PRSMError):
    """The model's container answered wrongly, or failed."""

    default_code = "PROVIDER_ERROR"


class ResourceUnavailableError(PRSMError):
    """Nothing can serve this now; `details` says what is missing."""

    default_code = "RESOURCE_UNAVAILABLE"


class RolloutFailedError(PRSMError):
    """The rollout that was waited for was not completed; `message` says why."""

    default_code = "ROLLOUT_FAILED"


class InferenceTimeoutError(PRSMError):
    """The model did not answer within its request timeout."""

    default_code = "INFERENCE_TIMEOUT"


class StorageFullError(PRSMError):
    """The server's disk is full; nothing was changed."""

    default_code = "STORAGE_FULL"


class InternalServerError(PRSMError):
    """The server failed; its log has the cause under the request id."""

    default_code = "INTERNAL"


_BY_CODE: Mapping[str, type[PRSMError]] = {
    kind.default_code: kind
    for kind in (
        InvalidInputError,
        InvalidApiKeyError,
        PermissionDeniedError,
        NotFoundError,
        ModelNotFoundError,
        DeploymentNotFoundError,
        ConflictError,
        PreconditionFailedError,
        RequestTooLargeError,
        RateLimitExceededError,
        QuotaExceededError,
        QueueFullError,
        ProviderError,
        ResourceUnavailableError,
        InferenceTimeoutError,
        StorageFullError,
        InternalServerError,
    )
}
_BY_STATUS: Mapping[int, type[PRSMError]] = {  # for codes that are newer than this package
    400: InvalidInputError,
    401: InvalidApiKeyError,
    403: PermissionDeniedError,
    404: NotFoundError,
    409: ConflictError,
    412: PreconditionFailedError,
    413: RequestTooLargeError,
    429: TooManyRequestsError,
    502: ProviderError,
    503: ResourceUnavailableError,
    504: InferenceTimeoutError,
    507: StorageFullError,
}


def error_from_answer(status: int, headers: Mapping[str, str], body: object) -> PRSMError:
    """Return the error that an HTTP answer outside 2xx means.

    Args:
        status: The HTTP status.
        headers: The answer's headers; `Retry-After` and `X-Request-ID` are read, in any case.
        body: The decoded JSON, or None when it was not JSON.
    """
    lower = {name.lower(): value for name, value in headers.items()}
    retry_after = _seconds(lower.get("retry-after"))
    error = body.get("error") if isinstance(body, Mapping) else None
    if not isinstance(error, Mapping):
        return UnexpectedAnswerError(
            f"the server answered HTTP {status} without an error of this API: is it prsmd?",
            status=status,
            request_id=lower.get("x-request-id"),
            retry_after=retry_after,
        )
    code, details = error.get("code"), error.get("details")
    code = code if isinstance(code, str) else None
    kind = _BY_CODE.get(code or "") or _BY_STATUS.get(status, PRSMError)
    return kind(
        str(error.get("message") or f"the server answered HTTP {status}"),
        code=code,
        status=status,
        details=details if isinstance(details, Mapping) else None,
        request_id=str(error.get("request_id") or "") or lower.get("x-request-id"),
        retry_after=retry_after,
    )


def _seconds(text: str | None) -> float | None:
    """Return Retry-After in seconds; its date form is not used by this API and ignored."""
    return float(text) if text is not None and text.isascii() and text.isdigit() else None
