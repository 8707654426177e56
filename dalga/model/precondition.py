"""
What has to hold of the job that is there, for a write to be done at all. Pure.

A *version* is a number that a job gets whenever a PUT or a PATCH changes its definition. Runs don't
change it. A client says with a write which version it has read (If-Match), or that it expects no
job (If-None-Match: \\*). So it does not undo, unseen, what another client has written since.
"""

from __future__ import annotations

from typing import NamedTuple

from dalga.errors import PreconditionFailed
from dalga.model.key import RawKey

#: In the place of a version: there is a job, and its row can't be understood. No version equals it.
UNREADABLE = -1


class Precondition(NamedTuple):
    """
    ==========================  =======================================================
    `Precondition(versions)`    there is a job, and it has one of these versions
    `Precondition()`            there is a job, whatever its version
    `Precondition(absent=True)` there is no job
    ==========================  =======================================================
    """

    #: None for any version. An empty set is met by no job: the ETags were weak, or not Dalga's.
    versions: frozenset[int] | None = None
    absent: bool = False

    def check(self, key: RawKey, found: int | None) -> None:
        """
        :param found: the version of the job that is there, or `UNREADABLE`; None if there is none.
        :raises PreconditionFailed: if the precondition does not hold.
        """
        job = f"job with path {key.path!r} and body {key.body!r}"
        if self.absent:
            if found is not None:
                raise PreconditionFailed(
                    f"there is a {job} already, and If-None-Match asks for none: leave "
                    "If-None-Match out to change that job"
                )
        elif found is None:
            raise PreconditionFailed(
                f"there is no {job}, and If-Match asks for one: a PUT without If-Match makes it"
            )
        elif self.versions is not None and found not in self.versions:
            other = f"the {job} has another ETag than those of If-Match"
            if self.versions:
                raise PreconditionFailed(
                    f"{other}: it was changed since. GET it, and try again with the ETag that it "
                    "has now"
                )
            # To GET the job again would give the client the same ETag again.
            raise PreconditionFailed(
                f'{other}, which no job can have: a weak one (W/"...") never matches, and a proxy '
                "that compresses answers makes them weak: have it leave Dalga's answers as they are"
            )
