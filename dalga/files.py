"""
How many files (sockets among them) the process may open, and how many of these are for clients.
"""

from __future__ import annotations

import resource

from dalga.log import logger
from dalga.web.server import MAX_CONNECTIONS

log = logger(__name__)

#: Open files beside the connections of clients and the connections to the endpoint: the database's
#: connections, logs, and some to spare.
OTHER_FILES = 100


def files_to_ask_for(files: int, most: int, slots: int) -> int:
    """
    The soft limit of open files that the process should ask for.

    :param files: its soft limit now; may be RLIM_INFINITY, as the next may.
    :param most: its hard limit, up to which it may ask for more.
    :param slots: how many POSTs are under way at once, at most.
    :return: `files` where that is enough; else as many as are of use, or as the hard limit allows.
    """
    if files == resource.RLIM_INFINITY:
        return files
    wanted = MAX_CONNECTIONS + slots + OTHER_FILES
    return max(files, wanted if most == resource.RLIM_INFINITY else min(wanted, most))


def clients_of(files: int, slots: int) -> int:
    """
    How many connections clients may have.

    A quarter of the files at least: where POSTs would take them all, clients could cancel no job.

    :param files: the soft limit of open files; may be RLIM_INFINITY.
    :param slots: how many POSTs are under way at once, at most.
    """
    if files == resource.RLIM_INFINITY:
        return MAX_CONNECTIONS
    return max(1, min(MAX_CONNECTIONS, max(files - slots - OTHER_FILES, files // 4)))


def room_for_clients(slots: int, endpoints: int = 1) -> int:
    """
    Raise the soft limit of open files as far as that is of use and allowed, and share the files
    between clients and POSTs. Where there are too few files for all slots, the log says so.

    The soft limit is mostly 1,024, for the sake of programs that wait by select(2). A program that
    waits by epoll(7), as this one does, is expected to raise it to the hard limit (systemd.exec(5),
    LimitNOFILE).

    :param slots: how many POSTs are under way at once, at most.
    :param endpoints: how many endpoints there are. Each may keep as many idle connections.
    :return: how many connections clients may have.
    """
    files, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = files_to_ask_for(files, most, slots * endpoints)
    if wanted != files:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))
            files = wanted
        except (ValueError, OSError) as error:  # macOS allows less than its hard limit says
            log.debug("the limit of open files stays {files}: {error}", files=files, error=error)
    clients = clients_of(files, slots * endpoints)
    posts = files - clients - OTHER_FILES
    if files != resource.RLIM_INFINITY and posts < slots:
        log.warn(
            "{files} open files are enough for {posts} POSTs at once, not for maxRunning = {slots}:"
            " allow {needed} (LimitNOFILE in systemd, ulimit -n in a shell), or lower maxRunning",
            files=files,
            posts=max(0, posts),
            slots=slots,
            needed=(slots + OTHER_FILES) * 4 // 3,
        )
    return clients
