"""
Names for jobs whose user gives none. Pure.

A name is a ULID (https://github.com/ulid/spec): 26 characters of Crockford's base32. The first 10
are a time, the other 16 are random::

    01ARYZ6S41  TSV4RRFFQ69G5FAV
    time        random: 80 bits
    48 bits

So names are in the order of their times, to the millisecond. Within one millisecond their order is
random.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

#: How many random octets a name takes.
RANDOM_OCTETS = 10

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_LENGTH = 26
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def generated_name(at: datetime, random: bytes) -> str:
    """
    The name of a job.

    :param at: the database's time (aware), in the year 1970 or later.
    :param random: `RANDOM_OCTETS` octets.
    :raises ValueError: for an earlier time, and for more or fewer octets.
    """
    milliseconds = (at - _EPOCH) // timedelta(milliseconds=1)
    if not 0 <= milliseconds < 2**48 or len(random) != RANDOM_OCTETS:
        raise ValueError("a name takes 48 bits of time and 80 random ones")
    number = milliseconds << 80 | int.from_bytes(random)
    return "".join(_ALPHABET[number >> shift & 31] for shift in range(5 * (_LENGTH - 1), -1, -5))
