"""``textkeep adaptor``: saves a run's trained adaptor, so that another run can start from it."""

from __future__ import annotations

from pathlib import Path

from ..foundation.errors import UserError
from ..foundation.outputs import check_output
from .command_parser import CommandParser
from .errors import speaking_as
from .options import add_overwrite_option

ENDING = ".safetensors"


def main(argv: list[str]) -> int:
    """Writes ``OUT`` (safetensors) from the last checkpoint of ``RUN``.

    Args:
        argv: Arguments after the verb.

    Returns:
        Exit code.
    """
    parser = CommandParser(
        prog="textkeep adaptor",
        description="Save a run's adaptor as safetensors, for `model.adaptor_weights` of another run.",
    )
    parser.add_argument("run", type=Path, help="run directory or checkpoint")
    parser.add_argument("-o", "--out", type=Path, required=True, help="the safetensors file to make")
    add_overwrite_option(parser)
    args = parser.parse_args(argv)
    if args.out.suffix != ENDING:
        raise UserError(f"adaptor: -o {args.out} is not a {ENDING} file; allowed: a name with that ending")
    check_output("adaptor: -o", args.out, args.overwrite)

    from ..inference.loading import load_run
    from ..lightning_modules.llm.lora_layers import merge_sound_lora
    from ..lightning_modules.saving.adaptor_file import encoder_trained, save_adaptor

    with speaking_as("adaptor"):
        model = load_run(args.run, "cpu").require_speech_llm()
    if model.ear.of_audio_llm:
        raise UserError(f"adaptor: {args.run} listens through an audio LLM's own projector; allowed: textkeep export")
    merge_sound_lora(model.encoder, model.adaptor)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    words = model.llm.get_input_embeddings().weight
    save_adaptor(args.out, model.adaptor, model.encoder, model.llm_source, words=words)
    size = args.out.stat().st_size / 2**20
    count = sum(p.numel() for p in model.adaptor.parameters()) / 1e6
    print(f"{args.out}: {type(model.adaptor).__name__}, {count:.1f} M parameters, {size:.1f} MiB")
    if encoder_trained(model.encoder):
        print(f"{args.out}: fits only the encoder that was trained along, which textkeep export keeps beside it")
    return 0
