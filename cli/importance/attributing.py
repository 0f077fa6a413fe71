"""``textkeep importance attribute BASE TUNED --data D``: which matrices caused the forgetting."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .output import print_json, print_table, saying, write_json
from .subject import Subject, add_data_options, add_model_options, load_subject, positive, read_batches


def main(argv: list[str]) -> int:
    """Attributes the change of the loss on ``--data`` to the matrices that moved.

    Args:
        argv: The words after ``textkeep importance attribute``.

    Returns:
        The exit code.
    """
    arguments = _parser().parse_args(argv)
    from ...importance.attribution import attribute

    base = load_subject(arguments.base, arguments.device, arguments.dtype)
    tuned = load_subject(arguments.tuned, arguments.device, arguments.dtype)
    batches = read_batches(tuned, arguments, modality="text")
    values = {name: p.detach() for name, p in _merged(base).named_parameters()}
    with saying() as progress:
        found = attribute(
            _merged(tuned), values, batches, nodes=arguments.nodes, reverts=arguments.reverts, progress=progress
        )
    if arguments.output:
        write_json(found.as_dict(), arguments.output)
    if arguments.plot:
        from .plotting import plot_attribution

        plot_attribution(found, arguments.plot)
        print(f"picture: {arguments.plot}")
    if arguments.json:
        print_json(found.as_dict())
        return 0
    _print(found, arguments.show)
    return 0


def _merged(subject: Subject) -> Any:
    """The model with adapters folded into its weights."""
    merge = getattr(subject.llm, "merge_and_unload", None)
    if merge is not None:
        subject.llm = merge()
    return subject.llm


def _print(found: Any, count: int) -> None:
    change = found.loss_after - found.loss_before
    title = (
        f"loss {found.loss_before:.3f} -> {found.loss_after:.3f} ({change:+.3f}), {found.nodes} nodes, "
        f"completeness error {found.completeness_error:+.1%}"
    )
    print_table(title, ["layer", "nats"], ([name, f"{value:+.4f}"] for name, value in found.layers.items()))
    top = sorted(found.parameters.items(), key=lambda item: -abs(item[1]))[:count]
    print_table(
        f"{len(top)} largest of {len(found.parameters)}", ["matrix", "nats"], ([n, f"{v:+.4f}"] for n, v in top)
    )
    rows = ([", ".join(r.names), f"{r.predicted:+.4f}", f"{r.recovered:+.4f}"] for r in found.reverts)
    print_table("check: put back to the base values", ["matrices", "predicted", "loss regained"], rows)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="textkeep importance attribute", description=__doc__, allow_abbrev=False)
    parser.add_argument("base", metavar="BASE", help="model before tuning: hub id, folder, asset:NAME")
    parser.add_argument("tuned", metavar="TUNED", help="after: the same, or a run directory or .ckpt file")
    add_data_options(parser, examples=32)
    parser.add_argument("--nodes", type=positive, default=4, help="Gauss-Legendre nodes to begin with (default: 4)")
    parser.add_argument("--reverts", type=positive, default=3, help="top matrices to put back as a check (default: 3)")
    parser.add_argument("--show", type=positive, default=12, help="matrices to list (default: 12)")
    parser.add_argument("--json", action="store_true", help="JSON instead of tables")
    parser.add_argument("--plot", type=Path, metavar="OUT.png", help="also write a picture")
    parser.add_argument("-o", "--output", type=Path, help="also write JSON here")
    add_model_options(parser)
    return parser
