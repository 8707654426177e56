"""
How a user logs in to MySQL or MariaDB, for the ways in which PyMySQL needs help. A server that asks
for the password in plain text gets it over TLS or a local socket only. A way to log in that PyMySQL
does not know is named, with what would do instead.
"""

from __future__ import annotations

import re
from typing import Any

import pymysql
from pymysql.constants import CR

#: What to do about a plugin that PyMySQL does not know.
_ANOTHER = (
    "give the user another, such as caching_sha2_password (MySQL) or ed25519 (MariaDB, with "
    "dalga[ed25519])"
)

#: How many questions of PAM are answered, at most.
QUESTIONS = 3


class PlainText:
    """
    ``mysql_clear_password``, as PAM, LDAP and clouds' IAM want it.

    :param connection: PyMySQL's.
    """

    plugin = "mysql_clear_password"

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def authenticate(self, packet: Any) -> Any:
        """
        Answer the server's question.

        :return: the packet with which the server accepts the answer, or goes on.
        """
        return self._answer()

    def _answer(self) -> Any:
        """
        Send the password.

        :return: the server's next packet.
        :raises pymysql.OperationalError: if others could read the password, or it is refused.
        """
        connection = self._connection
        if not connection._secure:
            raise pymysql.OperationalError(
                CR.CR_AUTH_PLUGIN_ERR,
                f"it wants the password as it is ({self.plugin}), which is not sent without TLS: "
                "set ssl-ca in [mysql]",
            )
        connection.write_packet(connection.password + b"\0")
        return self._read()

    def _read(self) -> Any:
        packet = self._connection._read_packet()
        packet.check_error()
        return packet


class Dialog(PlainText):
    """``dialog``: MariaDB's PAM. Questions for a password are answered, and no others."""

    plugin = "dialog, as PAM does"

    def authenticate(self, packet: Any) -> Any:
        """See `PlainText.authenticate`."""
        question = packet.read_all()
        for _ in range(QUESTIONS):
            # The prompt is empty if the server waits for the password before it asks PAM.
            prompt = question[1:].decode("utf-8", "replace").strip()
            if prompt and not prompt.lower().startswith("password"):
                break
            answer = self._answer()
            if answer.is_ok_packet():
                return answer
            question = answer.get_all_data()
        raise pymysql.OperationalError(
            CR.CR_AUTH_PLUGIN_ERR,
            f"PAM asks {prompt!r:.60}, and only what begins with 'Password' can be answered: "
            f"change the configuration of its service, or {_ANOTHER}",
        )


#: For PyMySQL: what logs in, by the plugin's name as the server gives it.
PLUGINS: dict[bytes, type[PlainText]] = {
    b"mysql_clear_password": PlainText,
    b"dialog": Dialog,
}


def what_is_missing(error: Exception) -> str | None:
    """Which plugin or package is missing, as a sentence; None for an error of another kind."""
    if isinstance(error, RuntimeError):
        if "ed25519" in str(error):
            return "it logs in by ed25519, which takes a package more: pip install 'dalga[ed25519]'"
        return str(error)
    if (
        isinstance(error, pymysql.OperationalError)
        and error.args[0] == CR.CR_AUTH_PLUGIN_CANNOT_LOAD
    ):
        found = re.search(r"b?'(\w+)'", str(error.args[1]).replace("b'", "'"))
        plugin = found[1] if found else "a plugin"
        return f"it logs in by {plugin}, which PyMySQL has not: {_ANOTHER}"
    return None
