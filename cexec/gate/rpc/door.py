"""Who calls, and what each call passes before it does anything.

Contract: `Door.call` finds the caller's `Caller`, counts the call against the token's rate, runs the work, and ends
the call with a status if that raises a problem.  A token is in the metadata (`authorization: Bearer TOKEN`), or it is
the one that the common name of the client's certificate names; a caller that brings both is judged by the token in the
metadata.  A call whose token ends meanwhile is ended.  A change, and a refusal, is a line of the audit.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable, Coroutine
from math import ceil
from secrets import token_hex
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import unquote

from cexec.errors import LocalError, UsageError
from cexec.gate.access.caller import Caller, TokenRole
from cexec.gate.access.credential import NOT_VALID
from cexec.gate.access.key_rows import ended_keys, find_key, find_named_token
from cexec.gate.access.live_requests import LiveRequests, NoLongerValidError
from cexec.gate.access.rates import CallerRates
from cexec.gate.access.secret import Kind, parse_secret
from cexec.gate.access.steady_clock import SteadyClock
from cexec.gate.problem import Problem
from cexec.gate.rpc.status_codes import Context, FieldProblems, refuse

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cexec.gate.access.audit import Audit
    from cexec.gate.access.caller_limits import CallerLimits
    from cexec.gate.access.key_rows import Key
    from cexec.gate.rpc.tls_front import TlsCaller, TlsFront
    from cexec.gate.store.database import Database

Work: TypeAlias = Callable[[Caller, list[str]], Coroutine[Any, Any, None]]

_log = logging.getLogger("cexec.gate")


class Door:
    """What all calls of one server pass.  `rates`: of tokens, which HTTP counts, too."""

    def __init__(
        self,
        database: Database,
        audit: Audit,
        limits: CallerLimits,
        rates: CallerRates,
        *,
        front: TlsFront | None = None,
        clock: SteadyClock | None = None,
    ) -> None:
        """`front`: what says whose certificate a connection has brought."""
        self._reader = database.new_reader()
        self._audit = audit
        self._limits = limits
        self._rates = rates
        self._front = front
        self._clock = clock or SteadyClock()
        self._mistakes = CallerRates(limits.mistakes, limits.mistakes_at_once)
        self._live = LiveRequests(self._ended, limits.look)

    async def call(self, context: Context, name: str, work: Work, *, changes: bool = False) -> None:
        """Runs the work of a call.  `changes`: it needs more than the role of a viewer."""
        told: list[str] = []
        caller: Caller | None = None
        outcome = "gone"
        try:
            try:
                caller = self._identify(context)
                self._admit(caller)
                if changes:
                    caller.require(TokenRole.SUBMITTER)
                await self._live.run(caller.token, work(caller, told))
                outcome = "OK"
                return
            except NoLongerValidError:
                problem: Problem | FieldProblems = Problem(401, NOT_VALID)
            except (Problem, FieldProblems) as error:
                problem = error
            except UsageError as error:
                problem = Problem(422, str(error))
            except asyncio.CancelledError:
                raise  # the caller has gone; to go on here would leak what gRPC holds for the call
            except Exception as error:
                problem = self._unexpected(error)
            outcome = str(getattr(problem, "status", 422))
            await refuse(context, problem)
        finally:
            if changes or outcome in ("401", "403", "429"):
                self._audit.write(caller, self._source(context), f"gRPC {name}", outcome, told)

    def _admit(self, caller: Caller) -> None:
        wait = self._rates.admit(caller.token, monotonic())
        if wait is not None:
            raise _too_many("this token makes too many requests", wait)

    def _identify(self, context: Context) -> Caller:
        try:
            return self._key_of(context).identity(self._limits.jobs)
        except Problem:
            wait = self._mistakes.admit(self._source(context).rpartition(":")[0], monotonic())
            if wait is None:
                raise
            raise _too_many("too many calls without a valid token come from this address", wait) from None

    def _key_of(self, context: Context) -> Key:
        now = self._clock.now()
        if self._front is not None:
            self._caller(context)
        tokens = [value for name, value in context.invocation_metadata() or () if name == "authorization"]
        if tokens:
            scheme, _, text = _text(tokens[0]).partition(" ")
            secret = parse_secret(text.strip()) if scheme.lower() == "bearer" and len(tokens) == 1 else None
            if secret is None or secret.kind is not Kind.TOKEN:
                raise Problem(401, NOT_VALID)
            key = self._reader.read(lambda connection: find_key(connection, secret, now))
            if key is None:
                raise Problem(401, NOT_VALID)
            return key
        if self._front is None:
            raise Problem(401, "this needs the metadata authorization: Bearer TOKEN; cgate token add makes a token")
        name = self._caller(context).name
        found = self._reader.read(lambda connection: find_named_token(connection, name, now))
        if found is None:
            raise Problem(403, f"no valid token is called {name[:64]!r}, which is the common name of this certificate")
        return found

    def _caller(self, context: Context) -> TlsCaller:
        """Returns who has come through the front."""
        assert self._front is not None
        caller = self._front.caller(port_of(context))
        if caller is None:
            raise Problem(401, "this port is not for callers: connect by TLS to the address of --grpc")
        return caller

    def _source(self, context: Context) -> str:
        """Returns the caller's address and port, as the audit has it."""
        caller = None if self._front is None else self._front.caller(port_of(context))
        return _peer(context) if caller is None else caller.address

    def _unexpected(self, error: Exception) -> Problem:
        reference = token_hex(4)
        if isinstance(error, LocalError | sqlite3.Error | OSError):
            _log.error("call %s: %s", reference, error)
            return Problem(503, f"cgate cannot do this at the moment; its log says why (reference {reference})")
        _log.error("call %s", reference, exc_info=error)
        return Problem(500, f"cgate has failed; its log says why (reference {reference})")

    def _ended(self, keys: Iterable[int]) -> set[int]:
        now = self._clock.now()
        return self._reader.read(lambda connection: ended_keys(connection, keys, now))


def _too_many(detail: str, wait: float) -> Problem:
    return Problem(429, detail, headers={"Retry-After": str(max(1, ceil(wait)))})


def port_of(context: Context) -> int:
    """Returns the port of the other side of the connection."""
    digits = _peer(context).rpartition(":")[2]
    return int(digits) if digits.isdigit() else 0


def _peer(context: Context) -> str:
    """Returns address and port of the other side: gRPC says ipv4:127.0.0.1:1234."""
    return unquote(context.peer()).partition(":")[2] or "-"


def _text(value: str | bytes) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
