"""
Files with one secret in each, as Docker and Kubernetes hand secrets to a program. No sentence has
anything of a file in it, nor its path: somebody may have put the secret itself there.
"""

from __future__ import annotations

import os
import stat

from dalga.config.content import content_of

#: The largest file that is read, in bytes.
MAX_SECRET = 64 * 1024


def secret_in(path: str) -> str:
    """
    The text of a file, without its last line end.

    :raises ValueError: if there is no such text. The message is the end of a sentence on the file.
    """
    try:
        content = content_of(path, MAX_SECRET + 1)
    except OSError as error:
        raise ValueError(f"it can't be read ({error.strerror})") from None
    except ValueError:
        raise ValueError("it can't be read (its path has a NUL)") from None
    if len(content) > MAX_SECRET:
        raise ValueError(f"it is too large for a secret, {MAX_SECRET} bytes at most will do")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8 text") from None
    text = text.removesuffix("\n").removesuffix("\r")
    if not text:
        raise ValueError("it is empty")
    return text


def who_else_reads(path: str) -> str | None:
    """
    Who may read a file beside its owner: the end of a sentence. None for nobody, and for what is no
    file, such as a pipe.
    """
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    if not stat.S_ISREG(status.st_mode):
        return None
    if status.st_mode & stat.S_IROTH:
        return "every user of this machine can read it"
    if status.st_mode & stat.S_IRGRP:
        return "every user of its group can read it"
    return None
