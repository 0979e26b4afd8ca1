"""Which status of gRPC each failure has: the one table, which docs/how-to/grpc.md shows."""

from __future__ import annotations

from grpc import StatusCode

from service.errors import (
    BodyTooLarge,
    ClientDisconnected,
    DeadlineExceeded,
    HeaderTooLarge,
    ModelOutputInvalid,
    RequestError,
    RequestTimeout,
    TaskNotServed,
    Unauthorized,
    Unavailable,
    UnknownModel,
)

# A kind of error that is not here has the status of what it is a kind of; what nobody foresaw is INTERNAL.
STATUSES: dict[type[Exception], StatusCode] = {
    RequestError: StatusCode.INVALID_ARGUMENT,
    Unauthorized: StatusCode.UNAUTHENTICATED,
    UnknownModel: StatusCode.NOT_FOUND,
    TaskNotServed: StatusCode.NOT_FOUND,
    RequestTimeout: StatusCode.DEADLINE_EXCEEDED,
    BodyTooLarge: StatusCode.RESOURCE_EXHAUSTED,
    HeaderTooLarge: StatusCode.RESOURCE_EXHAUSTED,
    Unavailable: StatusCode.UNAVAILABLE,
    DeadlineExceeded: StatusCode.DEADLINE_EXCEEDED,
    ModelOutputInvalid: StatusCode.INTERNAL,
    ClientDisconnected: StatusCode.CANCELLED,
}


def find_status(error: BaseException) -> StatusCode:
    """Return the status of a failure."""
    return next((STATUSES[kind] for kind in type(error).__mro__ if kind in STATUSES), StatusCode.INTERNAL)
