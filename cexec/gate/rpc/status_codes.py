"""A `Problem` as gRPC tells it: a status code, its sentence, and google.rpc details.

Contract: `refuse` ends a call with a problem.  The details have an ErrorInfo with DOMAIN and a reason of REASONS,
BadRequest if members of the request are wrong, and RetryInfo if the caller may try again.  docs/api.md, "gRPC".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from cexec.gate.problem import Problem

Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]  # of one call
DOMAIN = "cexec"
DETAILS = "grpc-status-details-bin"  # the name of the metadata, by gRPC's convention

# By the status of HTTP: the code, and the reason of ErrorInfo.
REASONS = {
    400: (grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED"),
    401: (grpc.StatusCode.UNAUTHENTICATED, "NO_VALID_TOKEN"),
    403: (grpc.StatusCode.PERMISSION_DENIED, "NOT_ALLOWED"),
    404: (grpc.StatusCode.NOT_FOUND, "NOT_FOUND"),
    409: (grpc.StatusCode.FAILED_PRECONDITION, "WRONG_STATE"),
    410: (grpc.StatusCode.NOT_FOUND, "EXPIRED"),
    413: (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_LARGE"),
    416: (grpc.StatusCode.OUT_OF_RANGE, "BEHIND_THE_END"),
    422: (grpc.StatusCode.INVALID_ARGUMENT, "INVALID"),
    429: (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MUCH"),
    500: (grpc.StatusCode.INTERNAL, "FAILED"),
    503: (grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE"),
}


class FieldProblems(Exception):
    """Members of a request are wrong: their names and what is wrong with each."""

    def __init__(self, wrong: dict[str, str]) -> None:
        super().__init__("; ".join(f"{name}: {words}" for name, words in wrong.items()))
        self.wrong = wrong


def status_of(problem: Problem | FieldProblems) -> tuple[grpc.StatusCode, Status]:
    """Returns the code, and the message that the metadata has."""
    details: list[Message] = []
    if isinstance(problem, FieldProblems):
        code, reason = REASONS[422]
        violations = [BadRequest.FieldViolation(field=name, description=one) for name, one in problem.wrong.items()]
        details.append(BadRequest(field_violations=violations))
        words = str(problem)
    else:
        code, reason = REASONS.get(problem.status, REASONS[500])
        words = problem.detail
        if (seconds := problem.headers.get("Retry-After")) is not None:
            details.append(RetryInfo(retry_delay=Duration(seconds=int(seconds))))
    details.insert(0, ErrorInfo(reason=reason, domain=DOMAIN))
    packed = []
    for one in details:
        packed.append(AnyMessage())
        packed[-1].Pack(one)
    return code, Status(code=code.value[0], message=words, details=packed)


async def refuse(context: Context, problem: Problem | FieldProblems) -> NoReturn:
    """Ends the call."""
    code, status = status_of(problem)
    await context.abort(code, status.message, ((DETAILS, status.SerializeToString()),))
