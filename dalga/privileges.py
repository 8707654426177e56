"""
As which user the process opens its files: twistd starts as root where it is to give that up.
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
    Who the process will be once it runs: ``--uid`` and ``--gid`` of twistd, by number.

    Twistd gives a user without a group that user's own, and its other groups; of a group without a
    user it changes the group alone.
    """

    uid: int | None = None
    gid: int | None = None


#: The process keeps its user and group.
STAYS = User()


@contextmanager
def acting_as(user: User) -> Iterator[None]:
    """
    Open and make files as another user, and then be the former again (seteuid(2)).

    What is made belongs to that user, and what it can't open is known now, not when nobody is there
    to be told any more.

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
            os.initgroups(name, gid)  # which fails first, with nothing changed yet
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
