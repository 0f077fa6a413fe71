"""``textkeep export RUN -o DIR``: writes the LLM as a Hugging Face folder, with its speech parts beside it.

With --base, MODEL is not a run but an audio LLM or any text LLM: its own folder is written, with its text LLM moved
back towards BASE by --alpha or --revert.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..foundation.errors import UserError
from ..foundation.outputs import check_output
from .command_parser import CommandParser
from .errors import speaking_as
from .options import add_overwrite_option, finite
from .reverting import add_revert_options, read_culprits

DTYPES = ("float32", "bfloat16", "float16")


def main(argv: list[str]) -> int:
    """Writes the folder; format and contents are described in ``docs/export.md``.

    Args:
        argv: The words after ``textkeep export``.

    Returns:
        The exit code.
    """
    arguments = _parser().parse_args(argv)
    reverted = read_culprits(arguments.revert, arguments.top, "export")
    if arguments.base is not None:
        from .exporting_models import export_model

        export_model(arguments, reverted)
        return 0
    from ..datamodules import ChatPrompt
    from ..inference.loading import load_run
    from ..lightning_modules.saving.checkpoints import find_checkpoint, read_settings
    from ..lightning_modules.saving.export_folder import check_target, is_export, write_export, write_text_llm

    check_target(arguments.out)
    check_output("export: -o", arguments.out, arguments.overwrite, folder=True)
    if is_export(arguments.run):
        raise UserError(f"export: {arguments.run} is already an export; allowed: a run directory or a checkpoint")
    with speaking_as("export"):
        loaded = load_run(arguments.run, "cpu")
    model = loaded.require_speech_llm()
    settings = read_settings(find_checkpoint(loaded.origin.checkpoint or arguments.run))
    _edit(model, arguments, reverted)
    origin = {
        "llm": model.llm_source,
        "step": settings["step"],
        "tuning": type(model.tuning).__name__,
        "alpha": arguments.alpha,
        "reverted": reverted,
    }
    if (told := _unwritable(model, arguments.text_only)) is not None:
        raise UserError(f"export: {told}")
    end_id = ChatPrompt(model.tokenizer, **loaded.origin.prompts).end_id
    if arguments.text_only:
        write_text_llm(arguments.out, model, end_id)
    else:
        write_export(arguments.out, model, settings["model"], loaded.origin.data_options, origin, end_id)
    size = sum(file.stat().st_size for file in arguments.out.rglob("*") if file.is_file()) / 2**20
    print(f"{arguments.out}: step {settings['step']}, {size:.0f} MiB")
    return 0


def _unwritable(model: Any, text_only: bool) -> str | None:
    """Says why the model cannot be written as it is."""
    whole, llm = model.ear.whole(model.llm), model.llm
    layers = [getattr(m.config.get_text_config(decoder=True), "num_hidden_layers", None) for m in (whole, llm)]
    if text_only or layers[0] == layers[1]:
        return None
    return "an audio LLM has no place for inserted layers; allowed: --text-only, or --without-inserted"


def _edit(model: Any, arguments: argparse.Namespace, reverted: list[str]) -> None:
    """Merges adapters and sets the weights that were asked for."""
    import torch

    from ..lightning_modules.llm.edits import change_of
    from ..lightning_modules.llm.lora_layers import merge_lora, merge_sound_lora

    merge_sound_lora(model.encoder, model.adaptor)
    if arguments.without_inserted:
        model.tuning.remove_inserted(model.llm)
    if arguments.alpha != 1.0 or reverted:
        change_of(model).apply(arguments.alpha, reverted)
    elif model.tuning.mergeable:
        model.llm.to(torch.promote_types(model.llm.dtype, torch.float32))  # rounded once, to the requested type
        merge_lora(model.llm)
    model.ear.whole(model.llm).to(getattr(torch, arguments.dtype or "float32"))


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(prog="textkeep export", description=__doc__)
    parser.add_argument("run", type=Path, metavar="RUN", help="run directory or .ckpt file; a model with --base")
    parser.add_argument(
        "--base", metavar="BASE", help="the text LLM that MODEL came from: hub id, folder or asset:NAME"
    )
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="DIR", help="the folder to make")
    parser.add_argument(
        "--alpha",
        type=finite,
        default=1.0,
        help="share of what was learned: (1 - alpha) untouched + alpha tuned weights (default: 1)",
    )
    add_revert_options(parser)
    parser.add_argument(
        "--without-inserted", action="store_true", help="leave out the inserted layers, which gives the untouched LLM"
    )
    parser.add_argument(
        "--text-only", action="store_true", help="write only the LLM (of an audio LLM, the text LLM inside)"
    )
    parser.add_argument(
        "--dtype", choices=DTYPES, help="type of the LLM's weights (default: float32; with --base as they are stored)"
    )
    add_overwrite_option(parser)
    return parser
