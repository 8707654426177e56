"""
Variables that Kubernetes or a docker link has set, not an operator.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

#: IPv4, or IPv6, which has a colon.
_ADDRESS = r"[0-9]+(\.[0-9]+){3}|[0-9A-Fa-f]*:[0-9A-Fa-f:.]*"

#: Where a port is, which both tell with its number: ``tcp://10.0.0.11:3306``.
_LINK = rf"(tcp|udp|sctp)://({_ADDRESS}|\[[0-9A-Fa-f:.]+\]):[0-9]+"

#: A container, and the name that it was linked by: ``/web/db``.
_LINKED_CONTAINER = r"/[\w.-]+/[\w.-]+"

#: The end of the name of a variable that Kubernetes sets for each Service (its documentation,
#: "Accessing the Service: Environment variables") and ``docker run --link`` for each link (Docker's
#: documentation, "Legacy container links"), and what its value looks like.
_LINKS: tuple[tuple[str, str], ...] = (
    (r"_SERVICE_HOST", _ADDRESS),
    (r"_SERVICE_PORT(_\w+)?", r"[0-9]+"),
    (r"_PORT", _LINK),
    (r"_PORT_[0-9]+_(TCP|UDP|SCTP)(_START|_END)?", _LINK),
    (r"_PORT_[0-9]+_(TCP|UDP|SCTP)_PROTO", r"tcp|udp|sctp"),
    (r"_PORT_[0-9]+_(TCP|UDP|SCTP)_PORT(_START|_END)?", r"[0-9]+"),
    (r"_PORT_[0-9]+_(TCP|UDP|SCTP)_ADDR", _ADDRESS),
    (r"_NAME", _LINKED_CONTAINER),
)


def is_link(variable: str, text: str, environ: Mapping[str, str]) -> bool:
    """
    Whether a variable tells where a Service or a linked container is, which says nothing about
    Dalga: one called ``dalga-mysql`` gives ``DALGA_MYSQL_PORT=tcp://10.0.0.11:3306``.
    """
    if any(
        re.fullmatch(rf"\w+{end}", variable) and re.fullmatch(value, text) for end, value in _LINKS
    ):
        return True
    # A linked container's own variables may hold anything, but its name is beside them.
    linked, own, _ = variable.partition("_ENV_")
    name = environ.get(f"{linked}_NAME", "")
    return bool(own) and re.fullmatch(_LINKED_CONTAINER, name) is not None
