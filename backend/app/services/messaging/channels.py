"""The names of the Redis channels. They are built here and nowhere else."""

from __future__ import annotations

import re

# The same grammar as the CHECK on users.id: no blank, no line break, none of Redis's pattern characters.
USER_ID = re.compile(r"[A-Za-z0-9._:@|+=-]{1,128}")


def of_user(user_id: str) -> bytes:
    """Name the channel of a user: everything addressed to the user goes through it.

    Raises ValueError for a text that is not a user id: no channel is ever built from anything else.
    """
    if USER_ID.fullmatch(user_id) is None:
        msg = "not a user id"
        raise ValueError(msg)
    return b"user:" + user_id.encode()


def of_probe(process_id: str) -> bytes:
    """Name the channel on which a process hears its own probes."""
    return b"probe:" + process_id.encode()
