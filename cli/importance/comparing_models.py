"""Two models on the same text: whether one descends from the other, and how the importance of its weights moved."""

from __future__ import annotations

import argparse
from functools import partial
from typing import TYPE_CHECKING

from ...foundation.outputs import check_output
from ..errors import speaking_as
from ..output import deliver, given_arguments, print_table, progress_bars, say
from .examples import loaded, shared_batches
from .shift_tables import Shifts

if TYPE_CHECKING:
    from ...importance import Snapshot
    from ...importance.lineage import Lineage


def compare_models(arguments: argparse.Namespace) -> None:
    """Loads both models, reports how they are related, measures both on the same batches and compares them.

    Both use the first model's batches and chat template, so that the weights differ and not the prompt.

    Args:
        arguments: Of ``textkeep importance compare``, with ``--data``.

    Raises:
        UserError: If one cannot be loaded, their sizes differ, or they tokenize the same text differently.
    """
    from ...importance import DEFAULT_ESTIMATORS, probe
    from ...importance.lineage import lineage
    from ...runs.pictures.measurements import plot_comparison

    if arguments.snapshots:
        check_output("importance: --snapshots", arguments.snapshots, arguments.overwrite, folder=True)
    first, second = (loaded(name, arguments.device, arguments.dtype) for name in (arguments.before, arguments.after))
    batches = shared_batches(first, second, arguments)
    with speaking_as("importance"):
        related = lineage(first.llm, second.llm)
    estimators = (arguments.estimator,) if arguments.estimator else DEFAULT_ESTIMATORS
    snapshots = []
    for model in (first, second):
        with progress_bars() as progress, speaking_as("importance"), model.measuring("text"):
            snapshots.append(probe(model.llm, batches, estimators, name=arguments.data, progress=progress))
    if arguments.snapshots:
        for name, snapshot in zip(("before", "after"), snapshots, strict=True):
            snapshot.save(arguments.snapshots / name)
        say(f"snapshots: {arguments.snapshots}")
    before, after = snapshots
    shifts = Shifts.between(before, after, arguments)
    record = {"arguments": given_arguments(arguments), "lineage": related.as_dict(), "shifts": shifts.as_list()}
    names = _short(arguments.before), _short(arguments.after)
    title = (
        f"Importance of the weights for {arguments.data}: {names[0]} and {names[1]}\n{_told(related, before, after)}"
    )
    draw = partial(plot_comparison, before, after, shifts.found, title=title, names=names)
    deliver(record, arguments, draw, partial(_show, related, shifts))


def _told(related: Lineage, before: Snapshot, after: Snapshot) -> str:
    """Says in a line what a picture of the two has to tell beside importance."""
    return (
        f"{len(before.losses)} examples, loss {before.loss:.3f} -> {after.loss:.3f} nats a token; lineage: "
        f"{related.verdict}, cosine of the weights {related.whole.cosine:.4f}"
    )


def _short(name: str) -> str:
    """Returns the last two parts of a path, and a hub id as it is."""
    return "/".join(name.rstrip("/").split("/")[-2:])


def _show(related: Lineage, shifts: Shifts) -> None:
    """Prints the lineage, then the shifts."""
    counts = related.counts
    told = ", ".join(f"{counts[verdict]} {verdict}" for verdict in ("parent", "relative", "unrelated"))
    rows = [
        [label, f"{found.cosine:.4f}", f"{found.change:.2%}", f"{found.chance:.1g}"]
        for label, found in related.layers.items()
    ]
    title = (
        f"lineage: {related.verdict}; cosine of the weights {related.whole.cosine:.4f}, and 0 +- "
        f"{related.whole.chance:.1g} if they had been initialised independently; of {len(related.matrices)} matrices "
        f"{told}; {counts['equal']} are equal"
    )
    print_table(title, ["layer", "cosine", "change", "chance"], rows)
    if related.verdict == "unrelated":
        say("the weights are independent of each other: what follows is not a shift, but two models side by side")
    shifts.show()
