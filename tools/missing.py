"""Imported for its effect: a package that is not installed gets a sentence, not a traceback."""

from __future__ import annotations

import sys
from types import TracebackType

NOT_IN_REQUIREMENTS = ("torch", "transformers")  # what --hugging-face alone needs


def tell(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if not isinstance(error, ModuleNotFoundError):
        sys.__excepthook__(kind, error, trace)
        return
    what = " ".join(NOT_IN_REQUIREMENTS) if error.name in NOT_IN_REQUIREMENTS \
        else "-r tools/requirements.txt"
    print(f"{sys.argv[0]}: {error}; pip install {what}", file=sys.stderr)


sys.excepthook = tell
