"""
Which texts may name a table, a host, a file and so on. Each function gives why a text may not, as
the end of a sentence; or None where it may.
"""

from __future__ import annotations

import re

from dalga.model.address import host_and_port, is_host

#: How connections to MySQL are encrypted, in the words of MySQL's own client.
SSL_MODES = ("disabled", "preferred", "required", "verify-ca", "verify-identity")


def undisplayable(text: str) -> str | None:
    """For any text: each may be shown in a line of the log."""
    for character in text:
        if character < " " or character == "\x7f":
            return f"it has the control character U+{ord(character):04X}, leave it out"
        # Python has these in place of bytes of the environment that are not UTF-8.
        if "\ud800" <= character <= "\udfff":
            return "it is not UTF-8, write it in UTF-8"
    return None


def database_name(text: str) -> str | None:
    return None if text else "it takes the name of a database"


def user_name(text: str) -> str | None:
    return None if text else "it takes the name of a database user"


def table_name(text: str) -> str | None:
    # Of the 64 characters that a name may have, 11 are for the tables beside it.
    if re.fullmatch(r"[A-Za-z0-9_$-]{1,53}", text):
        return None
    return "it takes 1 to 53 ASCII letters, digits, _, $ and -"


def file_path(text: str) -> str | None:
    if text and text != ":memory:":
        return None
    return "it takes the path of a file, such as dalga.sqlite"


def database_hosts(text: str) -> str | None:
    if all(host_and_port(part.strip(), 1) for part in text.split(",")):
        return None
    return (
        "it takes a host name or an IP address, or several with commas between them, each with a "
        "port if that is not port's: db1, db2:3307, [::1]:3307"
    )


def ssl_mode_of(text: str) -> str:
    """The mode as in `SSL_MODES`, for a text such as VERIFY_CA, which MySQL's own client takes."""
    return text.lower().replace("_", "-")


def ssl_mode(text: str) -> str | None:
    if ssl_mode_of(text) in SSL_MODES:
        return None
    return f"it takes {', '.join(SSL_MODES[:-1])} or {SSL_MODES[-1]}"


def listen_host(text: str) -> str | None:
    if is_host(text):
        return None
    return (
        "it takes a host name or an IP address, without a port and without brackets, and 0.0.0.0 "
        "or :: for all of this machine's"
    )
