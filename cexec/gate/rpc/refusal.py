"""A gRPC server for callers whose certificate does not count: it answers every call with the reason.

Contract: `add_refusal` makes a server refuse whatever it is called for, with UNAUTHENTICATED and the words of the
`TlsFront`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc

from cexec.gate.problem import Problem
from cexec.gate.rpc.door import port_of
from cexec.gate.rpc.status_codes import refuse

if TYPE_CHECKING:
    from cexec.gate.rpc.status_codes import Context
    from cexec.gate.rpc.tls_front import TlsFront


class _Refusal(grpc.GenericRpcHandler):
    def __init__(self, front: TlsFront) -> None:
        self._front = front

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any]:
        return grpc.stream_stream_rpc_method_handler(self._refuse)  # which a unary call cannot tell from its own kind

    async def _refuse(self, requests: Any, context: Context) -> None:
        caller = self._front.caller(port_of(context))
        await refuse(context, Problem(401, "who are you?" if caller is None else caller.trouble))


def add_refusal(server: grpc.aio.Server, front: TlsFront) -> None:
    """Lets the server refuse every call."""
    server.add_generic_rpc_handlers((_Refusal(front),))
