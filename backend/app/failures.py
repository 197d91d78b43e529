"""What to tell of a failure that was foreseen. Apart from `exits.py`, because it knows what all of them come from."""

from __future__ import annotations

from pydantic import ValidationError

from app.embedded_process import EmbeddedError
from app.errors import GaplessError
from app.exits import CommandError, Exit


def explain(error: BaseException) -> tuple[list[str], Exit] | None:
    """Give the sentences and the exit code of a failure that was foreseen; None for a defect."""
    match error:
        case CommandError():
            return [str(error)], error.code
        case ValidationError():
            return setting_sentences(error), Exit.CONFIG
        case EmbeddedError():
            return [str(error)], Exit.FAILED
        case GaplessError():
            return [f"PostgreSQL does not answer: {type(error.__cause__).__name__}."], Exit.UNAVAILABLE
        case _:
            return None


def setting_sentences(error: ValidationError) -> list[str]:
    """Say which settings are not usable, and why; never what they were set to."""
    sentences = []
    for problem in error.errors(include_input=False, include_url=False):
        text = problem["msg"].removeprefix("Value error, ")
        # A rule between settings has no place of its own, and names them in its sentence.
        name = str(problem["loc"][0]).upper() if problem["loc"] else ""
        sentences.append(f"{name}: {text[:1].lower()}{text[1:]}." if name else text)
    return sentences
