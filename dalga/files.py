"""
The files that the process may open, sockets among them: how many there are, and for whom.
"""

from __future__ import annotations

import resource

from dalga.log import logger
from dalga.web.server import MAX_CONNECTIONS

log = logger(__name__)

#: Files that are open beside the connections of clients and those to the endpoint: the database's
#: connections, logs, and some to spare.
OTHER_FILES = 100


def files_to_ask_for(files: int, most: int, slots: int) -> int:
    """
    How many files the process should be allowed to open.

    :param files: how many it is, its soft limit. This and the next may be RLIM_INFINITY.
    :param most: how many it may ask for, its hard limit.
    :param slots: POSTs at once.
    :return: `files` where that is enough, or all that there are.
    """
    if files == resource.RLIM_INFINITY:
        return files
    wanted = MAX_CONNECTIONS + slots + OTHER_FILES
    return max(files, wanted if most == resource.RLIM_INFINITY else min(wanted, most))


def clients_of(files: int, slots: int) -> int:
    """
    How many connections of clients so many files are enough for, beside those of the jobs: a
    quarter of the files at least, so that jobs can be cancelled where POSTs would take them all.
    """
    if files == resource.RLIM_INFINITY:
        return MAX_CONNECTIONS
    return max(1, min(MAX_CONNECTIONS, max(files - slots - OTHER_FILES, files // 4)))


def room_for_clients(slots: int) -> int:
    """
    Have as many files open as are of use and the process may, and leave some for the jobs. Where
    there are too few for all slots, the log says so.

    The soft limit is mostly 1,024, for the sake of select(2), which is not used here; whoever waits
    by epoll(7) is expected to raise it to the hard limit (systemd.exec(5), LimitNOFILE).

    :param slots: POSTs at once.
    :return: how many connections of clients that leaves.
    """
    files, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = files_to_ask_for(files, most, slots)
    if wanted != files:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))
            files = wanted
        except (ValueError, OSError) as error:  # macOS allows less than its hard limit says
            log.debug("the limit of open files stays {files}: {error}", files=files, error=error)
    clients = clients_of(files, slots)
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
