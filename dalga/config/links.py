"""
Variables of the environment that an operator has not set, but Kubernetes or a docker link.

Beside a Service called ``dalga-mysql``, Kubernetes sets ``DALGA_MYSQL_PORT=tcp://10.0.0.11:3306``.
It has the name of a key of Dalga's, and says nothing about Dalga.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

#: An IPv4 address, or an IPv6 address, which has a colon.
_ADDRESS = r"[0-9]+(\.[0-9]+){3}|[0-9A-Fa-f]*:[0-9A-Fa-f:.]*"

#: The address and number of a port, as both give it: ``tcp://10.0.0.11:3306``.
_LINK = rf"(tcp|udp|sctp)://({_ADDRESS}|\[[0-9A-Fa-f:.]+\]):[0-9]+"

#: The name of a container, and the name that it was linked by: ``/web/db``.
_LINKED_CONTAINER = r"/[\w.-]+/[\w.-]+"

#: The ends of the variables' names, and the form of their values. Kubernetes sets them for each
#: Service (its documentation, "Accessing the Service: Environment variables"), ``docker run
#: --link`` for each link (Docker's documentation, "Legacy container links").
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
    Whether Kubernetes or a docker link has set a variable.

    :param text: the variable's value.
    :param environ: all variables, by their names.
    """
    if any(
        re.fullmatch(rf"\w+{end}", variable) and re.fullmatch(value, text) for end, value in _LINKS
    ):
        return True
    # A linked container's own variables may hold anything, but its name is beside them.
    linked, own, _ = variable.partition("_ENV_")
    name = environ.get(f"{linked}_NAME", "")
    return bool(own) and re.fullmatch(_LINKED_CONTAINER, name) is not None
