"""The one tree of errors. Drivers translate foreign exceptions into it at their boundary.

Expected outcomes are return values; these are for what a caller cannot go on from. Each carries the
`code` of the API, the HTTP status it suggests and whether trying again can help.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self


class PrsmdError(Exception):
    """Base of all errors. `message` is safe to show to the caller; `details` becomes JSON."""

    code: ClassVar[str] = "INTERNAL"
    status_hint: ClassVar[int] = 500
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.details: Mapping[str, Any] = details


class InvalidInputError(PrsmdError):
    """The request is wrong. Each problem names the field, what is wrong and what was given."""

    code = "INVALID_INPUT"
    status_hint = 400

    def __init__(self, message: str, problems: Sequence[Mapping[str, Any]] = ()) -> None:
        super().__init__(message, validation_errors=list(problems))

    @classmethod
    def field(cls, field: str, error: str, provided: object = None) -> Self:
        """Return the error for one wrong field."""
        problem = {"field": field, "error": error, "provided_value": provided}
        return cls(f"{field}: {error}", [problem])


class InvalidApiKeyError(PrsmdError):
    """No key, or one that is unknown, expired, revoked or mistyped."""

    code = "INVALID_API_KEY"
    status_hint = 401


class InvalidTokenError(InvalidApiKeyError):
    """A token that proves nothing. `why` is for the log, not for whoever sent the token."""

    def __init__(self, why: str) -> None:
        super().__init__("The token is not valid here; ask for a new one.")
        self.why = why


class PermissionDeniedError(PrsmdError):
    """The principal is known but may not do this."""

    code = "INSUFFICIENT_PERMISSIONS"
    status_hint = 403


class NotFoundError(PrsmdError):
    """There is no such thing, or none that this principal may know of."""

    code = "NOT_FOUND"
    status_hint = 404


class ModelNotFoundError(NotFoundError):
    """No such model, or none that this principal may know of."""

    code = "MODEL_NOT_FOUND"


class DeploymentNotFoundError(NotFoundError):
    """No such deployment, or none that this principal may know of."""

    code = "DEPLOYMENT_NOT_FOUND"


class ConflictError(PrsmdError):
    """The request contradicts what is already there."""

    code = "CONFLICT"
    status_hint = 409


class PreconditionFailedError(PrsmdError):
    """What the caller changed upon (`If-Match`) is no longer so; nothing was changed."""

    code = "PRECONDITION_FAILED"
    status_hint = 412


class RequestTooLargeError(PrsmdError):
    """The body or the headers are larger than this server accepts."""

    code = "REQUEST_TOO_LARGE"
    status_hint = 413


class UnsupportedMediaTypeError(PrsmdError):
    """The body is in a form that is not taken here; the details say which are."""

    code = "UNSUPPORTED_MEDIA_TYPE"
    status_hint = 415


class QueueFullError(PrsmdError):
    """All replicas are busy and the bounded queue is full."""

    code = "QUEUE_FULL"
    status_hint = 429
    retryable = True


class RateLimitedError(PrsmdError):
    """Too many requests in a span of time; the details say which limit and when it ends."""

    code = "RATE_LIMIT_EXCEEDED"
    status_hint = 429
    retryable = True


class TooManyOpenError(PrsmdError):
    """Too many connections or streams at once; the details say which limit, and its setting."""

    code = "RATE_LIMIT_EXCEEDED"
    status_hint = 429
    retryable = True


class QuotaExceededError(PrsmdError):
    """All that may be used, in a day or in all, is used up; the details say which limit it is."""

    code = "QUOTA_EXCEEDED"
    status_hint = 429


class ResourceQuotaExceededError(PrsmdError):
    """An organization would have more than its quota allows; the details say of what, and why.

    Waiting alone does not help.
    """

    code = "QUOTA_EXCEEDED"
    status_hint = 429


class ProviderError(PrsmdError):
    """The model's container answered wrongly, or failed."""

    code = "PROVIDER_ERROR"
    status_hint = 502


class ResourceUnavailableError(PrsmdError):
    """Nothing can serve this now; the details say what is missing, by node and GPU."""

    code = "RESOURCE_UNAVAILABLE"
    status_hint = 503
    retryable = True


class InferenceTimeoutError(PrsmdError):
    """The model did not answer within the request timeout."""

    code = "INFERENCE_TIMEOUT"
    status_hint = 504


class StorageFullError(PrsmdError):
    """The disk is full, or the store cannot be written; nothing was changed."""

    code = "STORAGE_FULL"
    status_hint = 507
    retryable = True


class DaemonStoppingError(ResourceUnavailableError):
    """The daemon stops and cuts what is under way; the next one can be asked again."""


class EngineError(ResourceUnavailableError):
    """The container engine did not do what it was asked to. `message` quotes the engine."""


class EngineNotFoundError(EngineError):
    """The container engine does not know what it was asked about: it is gone."""


class EngineUnreachableError(EngineError):
    """The container engine does not answer; what runs is left as it is."""


class ImageUnavailableError(PrsmdError):
    """The image is not here and cannot be pulled."""

    code = "RESOURCE_UNAVAILABLE"
    status_hint = 503


class PullBrokenOffError(ImageUnavailableError):
    """A pull failed for a reason that can pass: the connection, or a registry in trouble."""

    retryable = True


class NoRoomForImageError(StorageFullError, ImageUnavailableError):
    """The disk that images are kept on is too full for another one; nothing was fetched."""
