"""Every way a request can fail, as one tree; `service.app` turns each leaf into problem+json.

UniheadError
├── RequestError            the caller can mend it
│   ├── EmptyBody           400 empty_body
│   ├── MalformedRequest    400 malformed_request
│   ├── Unauthorized        401 unauthorized
│   ├── ForeignOrigin       403 foreign_origin
│   ├── UnknownModel        404 unknown_model
│   ├── TaskNotServed       404 task_not_served
│   ├── RequestTimeout      408 request_timeout
│   ├── BodyTooLarge        413 body_too_large
│   ├── TooManyPixels       413 too_many_pixels
│   ├── UnsupportedImage    415 unsupported_image
│   ├── UnknownHost         421 unknown_host
│   ├── DamagedImage        422 damaged_image
│   ├── PictureTooCostly    422 picture_too_costly
│   ├── InvalidParameter    422 invalid_parameter
│   └── HeaderTooLarge      431 header_too_large
├── Unavailable             nobody is to blame; trying again later helps
│   ├── NotReady            503 not_ready
│   ├── Draining            503 draining
│   ├── Overloaded          503 overloaded
│   └── DeadlineExceeded    503 deadline_exceeded
├── ModelOutputInvalid      500 model_output_invalid: the model says what cannot be true
├── ClientDisconnected      499, which nobody reads
├── ContractError           the model file is not what it says; never reaches a caller
└── MissingPackage          an extra is not installed; never reaches a caller
"""

from __future__ import annotations

from typing import ClassVar, Literal, TypeAlias

OverloadReason: TypeAlias = Literal["queue_full", "wait_too_long", "memory", "connections"]


class UniheadError(Exception):
    """Anything this project raises on purpose while serving, and in the commands; one sentence."""


class RequestError(UniheadError):
    """The request cannot be answered, and its sender can mend it."""

    status: ClassVar[int] = 400
    code: ClassVar[str] = "bad_request"


class EmptyBody(RequestError):
    """The request carries no picture."""

    code = "empty_body"


class MalformedRequest(RequestError):
    """It cannot be read as the HTTP, the form, or the inference request that it says it is."""

    code = "malformed_request"


class Unauthorized(RequestError):
    """The request brings no key that is in force, or more than one."""

    status = 401
    code = "unauthorized"


class ForeignOrigin(RequestError):
    """A page of another origin sends something, and is not listed."""

    status = 403
    code = "foreign_origin"


class UnknownModel(RequestError):
    """A model or a version is asked for that is not served here."""

    status = 404
    code = "unknown_model"


class TaskNotServed(RequestError):
    """A task is asked for that the model was not made for."""

    status = 404
    code = "task_not_served"


class RequestTimeout(RequestError):
    """The request did not come in time."""

    status = 408
    code = "request_timeout"


class BodyTooLarge(RequestError):
    """The body has more bytes than the service takes."""

    status = 413
    code = "body_too_large"


class TooManyPixels(RequestError):
    """The picture's header announces more pixels, in all or a side, than the service decodes."""

    status = 413
    code = "too_many_pixels"


class UnsupportedImage(RequestError):
    """The first bytes are not JPEG, PNG or WebP."""

    status = 415
    code = "unsupported_image"


class UnknownHost(RequestError):
    """The Host that is asked for is not one of this service's."""

    status = 421
    code = "unknown_host"


class DamagedImage(RequestError):
    """The picture begins well and cannot be decoded here."""

    status = 422
    code = "damaged_image"


class PictureTooCostly(RequestError):
    """The picture is no larger than others, and its scans, frames, chunks or shape would cost much more."""

    status = 422
    code = "picture_too_costly"


class InvalidParameter(RequestError):
    """A query parameter is unknown or out of its range."""

    status = 422
    code = "invalid_parameter"


class HeaderTooLarge(RequestError):
    """The request line and header have more bytes or fields than the service takes."""

    status = 431
    code = "header_too_large"


class Unavailable(UniheadError):
    """The request is right and cannot be answered now.

    Attributes:
        retry_after_s: seconds after which trying again is worth it.
    """

    status: ClassVar[int] = 503
    code: ClassVar[str] = "unavailable"

    def __init__(self, sentence: str, *, retry_after_s: int = 1) -> None:
        super().__init__(sentence)
        self.retry_after_s = retry_after_s


class NotReady(Unavailable):
    """No model is loaded and warm, so no picture can be answered yet."""

    code = "not_ready"


class Draining(Unavailable):
    """The service is about to stop."""

    code = "draining"


class Overloaded(Unavailable):
    """More pictures have come than can be answered in time.

    Attributes:
        reason: queue_full, wait_too_long, memory or connections.
    """

    code = "overloaded"

    def __init__(self, sentence: str, *, reason: OverloadReason, retry_after_s: int) -> None:
        super().__init__(sentence, retry_after_s=retry_after_s)
        self.reason = reason


class DeadlineExceeded(Unavailable):
    """The picture was taken and not answered in time."""

    code = "deadline_exceeded"


class ModelOutputInvalid(UniheadError):
    """The model says about a picture what cannot be true: no numbers, or classes and boxes that there are not."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "model_output_invalid"


class ClientDisconnected(UniheadError):
    """The client disconnected while its picture waited."""


class ContractError(UniheadError):
    """A model file does not say what it is, or is not what it says."""


class MissingPackage(UniheadError):
    """An optional package is not installed; says which extra brings it."""

    def __init__(self, package: str | None, extra: str) -> None:
        super().__init__(f"{package} is not installed; pip install 'unihead[{extra}]' brings it")
