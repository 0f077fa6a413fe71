"""Which matrices to revert: those to blame by ``textkeep importance attribute``, whose change raised the loss."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from ..foundation.errors import UserError
from .options import positive


def add_revert_options(parser: argparse.ArgumentParser, several: bool = False) -> None:
    """Adds ``--revert FILE`` and ``--top K``.

    Args:
        parser: Gets them.
        several: Whether several numbers of matrices may be given.
    """
    parser.add_argument(
        "--revert",
        type=Path,
        metavar="ATTRIBUTION.json",
        help="revert the matrices to blame to the untouched LLM's values: those in the JSON of `textkeep importance "
        "attribute -o` whose change raised the loss on its text (positive nats)",
    )
    parser.add_argument(
        "--top",
        type=positive,
        nargs="+" if several else None,
        metavar="K",
        help="how many of them to revert, the worst first",
    )


def read_culprits(attribution: Path | None, top: int | None, verb: str) -> list[str]:
    """Returns the names of the matrices to revert; none without an attribution.

    Args:
        attribution: JSON of ``textkeep importance attribute``.
        top: How many.
        verb: For the messages.

    Raises:
        UserError: If the file is no attribution or blames nothing, or only one of the two is given.
    """
    if (attribution is None) != (top is None):
        raise UserError(f"{verb}: --revert and --top belong together; give both or neither")
    if attribution is None or top is None:
        return []
    from ..importance.reverts import blamed

    try:
        nats = {str(name): float(value) for name, value in json.loads(attribution.read_text())["parameters"].items()}
    except OSError as error:
        raise UserError(f"{verb}: --revert {attribution}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        made = "the JSON of `textkeep importance attribute -o`"
        raise UserError(f"{verb}: --revert {attribution} is not {made}") from error
    found = blamed(nats, top)
    if not found:
        raise UserError(f"{verb}: --revert {attribution}: none is to blame (allowed: positive nats)")
    if len(found) < top:
        print(f"{attribution}: only {len(found)} matrices are to blame (positive nats): all of them are reverted")
    return found
