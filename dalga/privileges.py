"""
The user as which the process opens its files. twistd starts as root and becomes another user later,
where it was given ``--uid`` or ``--gid``.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from dalga.errors import StartupError


@dataclass(frozen=True, slots=True)
class User:
    """
    The user and group of the process once it runs: the numbers of twistd's ``--uid`` and ``--gid``.

    With ``--uid`` alone, twistd takes the user's own group, and its other groups. With ``--gid``
    alone, twistd changes the group and no more.
    """

    uid: int | None = None
    gid: int | None = None


#: The process keeps the user and group that it has.
STAYS = User()


@contextmanager
def acting_as(user: User) -> Iterator[None]:
    """
    Be another user in this context, and then the former again (seteuid(2)).

    Files that are made in it belong to that user. A file that the user can't open is found now, and
    not later, when nobody is there to be told any more.

    :raises StartupError: if the process can't become that user.
    """
    uid, gid = user.uid, user.gid
    if uid is None and gid is None:
        yield
        return
    before, before_group, groups = os.geteuid(), os.getegid(), os.getgroups()
    name = ""
    if uid is not None:
        try:
            entry = pwd.getpwuid(uid)
        except KeyError:
            raise StartupError(
                f"there is no user with the number {uid}: give --uid one that there is"
            ) from None
        name = entry.pw_name
        gid = entry.pw_gid if gid is None else gid
    assert gid is not None
    try:
        if uid is not None and uid != before:
            os.initgroups(name, gid)  # the first to fail, with nothing changed yet
        os.setegid(gid)
        if uid is not None:
            os.seteuid(uid)
    except OSError as error:
        raise StartupError(
            f"can't become user {before if uid is None else uid} and group {gid} "
            f"({error.strerror}): start twistd as root, or without --uid and --gid"
        ) from error
    try:
        yield
    finally:
        if os.geteuid() != before:
            os.seteuid(before)
            os.setgroups(groups)
        os.setegid(before_group)
