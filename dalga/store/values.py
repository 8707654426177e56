"""
Values of columns, as the drivers give them and as a stranger may have written them (P6). Pure.

A server's driver gives text columns as ``str`` and columns of octets as ``bytes``. SQLite's gives
both as ``bytes``. A stranger may have written anything: a number where text belongs, on SQLite.
None of these functions fails.
"""

from __future__ import annotations


def octets(value: object) -> bytes:
    """A value as octets: text in UTF-8, anything else as Python writes it."""
    return value if isinstance(value, bytes) else str(value).encode()


def text_of(value: object) -> str:
    """A value as text, to show it. Octets that are no UTF-8 become U+FFFD."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def text_or_none(value: object) -> str | None:
    """`text_of`, where NULL is no text."""
    return None if value is None else text_of(value)


def whole(value: object) -> int:
    """A count; 0 for anything that is none."""
    return value if isinstance(value, int) and value > 0 else 0
