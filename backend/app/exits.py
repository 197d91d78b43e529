"""How a command ends: exit codes that scripts can trust, and a sentence instead of a traceback."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """The codes, from sysexits.h where it has one."""

    OK = 0
    FAILED = 1
    USAGE = 2  # click's own, for options that do not exist
    UNAVAILABLE = 69  # the server or the database does not answer
    REFUSED = 77  # the credential is not accepted
    CONFIG = 78  # a setting is missing or not usable


class CommandError(Exception):
    """A command cannot go on; the message is what a person reads."""

    def __init__(self, sentence: str, code: Exit = Exit.FAILED) -> None:
        """End with `code` after printing `sentence`."""
        super().__init__(sentence)
        self.code = code
