"""
What each route takes of its caller, by the name of the method that answers. Pure.

A route that is not in the table is refused to everybody.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from dalga.model.permit import Caller, Scope


class Need(NamedTuple):
    """What a route takes."""

    #: Any of these scopes will do; without one, everybody may.
    scopes: tuple[Scope, ...]
    #: Whether the scope has to be without limits. Else `Operations` looks at the jobs.
    whole: bool = False

    @property
    def is_open(self) -> bool:
        """Whether a request needs no token."""
        return not self.scopes

    def check(self, caller: Caller) -> None:
        """:raises Forbidden: for a caller that has none of the scopes."""
        if any(map(caller.may if self.whole else caller.might, self.scopes)) or self.is_open:
            return
        (caller.check if self.whole else caller.check_might)(self.scopes[0])


_EVERYBODY = Need(())
_READ = Need((Scope.READ,))
_TRIGGER = Need((Scope.TRIGGER,))
_WRITE = Need((Scope.WRITE,))
#: For answers about all jobs together.
_READ_ALL = Need((Scope.READ,), whole=True)

NEEDS: Mapping[str, Need] = MappingProxyType(
    {
        "schedule": _WRITE,
        "get": _READ,
        "trigger": _TRIGGER,
        "cancel": _WRITE,
        "change": _WRITE,
        "once": _WRITE,
        "run_times": _READ,
        "why": _READ,
        "job_runs": _READ,
        "runs": _READ,
        "run": _READ,
        "page": _READ,
        "replay": _TRIGGER,
        # What an action does to each job or run says which scope it takes.
        "act": _TRIGGER,
        "actions": _READ,
        "action": _READ,
        "stop_action": _TRIGGER,
        "preview": _READ,
        "status": _READ_ALL,
        "statistics": _READ,
        "instances": _READ_ALL,
        "endpoints": _READ,
        "alerts": _READ,
        "audit": Need((Scope.ADMIN,), whole=True),
        "metrics": Need((Scope.METRICS, Scope.READ), whole=True),
        # The page asks for what it shows, with a token.
        "front": _EVERYBODY,
        "file": _EVERYBODY,
        "visitor": _EVERYBODY,
        "log_in": _EVERYBODY,
        "log_out": _EVERYBODY,
        "health": _EVERYBODY,
        "ready": _EVERYBODY,
    }
)
