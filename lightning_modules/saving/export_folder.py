"""A trained model as a folder for other programs: the LLM in transformers' format, speech parts beside it.

::

    DIR/config.json, model*.safetensors, tokenizer.json, ...   the LLM; AutoModelForCausalLM.from_pretrained(DIR)
    DIR/processor_config.json, ...   where it is an audio LLM, whole: its own class and AutoProcessor read it
    DIR/adapter/            peft's own format, only where LoRA cannot be merged
    DIR/speech/adaptor.safetensors   only of an encoder and adaptor around a text LLM
    DIR/speech/encoder.safetensors   only if the encoder was trained
    DIR/textkeep.json       which encoder and adaptor, prompt settings, what it was made from

Nothing in it is pickled.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar, cast

from lightning.pytorch import LightningModule
from peft import get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file, save_file

from ...foundation.files import follow_umask, replacing_folder
from ..contract import SpeechModel
from ..llm.generation import stop_ids
from ..llm.lora_layers import lora_layers, without_lora
from .adaptor_file import ADAPTOR, ENCODER, load_adaptor

Model = TypeVar("Model", bound=LightningModule)

FORMAT = "textkeep-export-1"
MANIFEST = "textkeep.json"
LORA = "adapter"  # peft's name for it
PREFIX = "base_model.model."  # of the names in peft's files
SHARD = "5GB"


def is_export(path: str | Path) -> bool:
    """Returns whether a folder is one that :func:`write_export` made."""
    return Path(path, MANIFEST).is_file()


def is_plain(folder: str | Path) -> bool:
    """Returns whether an export contains only LLM and adaptor: no LoRA, no encoder of its own."""
    return not Path(folder, LORA).exists() and not Path(folder, ENCODER).exists()


def read_manifest(folder: str | Path) -> dict[str, Any]:
    """Reads ``textkeep.json`` of an export.

    Raises:
        ValueError: If it is damaged, or in the format of a later version.
    """
    path = Path(folder, MANIFEST)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        known = found["format"] == FORMAT
        if known and not (isinstance(found["model"], dict) and isinstance(found["prompts"], dict)):
            raise ValueError("model and prompts must be objects")
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is no manifest of an export: {error}") from error
    if not known:
        raise ValueError(f"{path} has the format {found['format']!r}; this version reads {FORMAT!r}")
    return found


def check_target(folder: Path) -> None:
    """Refuses an existing target that is not an export.

    Raises:
        FileExistsError: With what is allowed instead.
    """
    if folder.exists() and not is_export(folder) and not (folder.is_dir() and not any(folder.iterdir())):
        raise FileExistsError(f"{folder} exists and is no export; allowed: a new folder, or an export to replace")


def write_export(
    folder: Path,
    model: SpeechModel,
    settings: Mapping[str, Any],
    prompts: Mapping[str, Any],
    origin: Mapping[str, Any],
    end_id: int | None = None,
) -> None:
    """Writes the folder, completely or not at all.

    Args:
        folder: The target; an export that is there is replaced.
        model: With its LLM as it shall be written; LoRA that can be merged has been, that on encoder and adaptor too.
        settings: The model's arguments as a config has them (``encoder``, ``adaptor``, ``tuning``, ...).
        prompts: Prompt settings of the data module.
        origin: What it was made from, for human readers.
        end_id: The token that ends an answer in the chat template: a stop token for anyone who generates with the
            folder.

    Raises:
        FileExistsError: If the target exists and is not an export.
        ValueError: If LoRA cannot be written as one adapter of peft.
    """
    check_target(folder)
    if any(len(layer.scaling) > 1 for layer in lora_layers(model.llm).values()):
        raise ValueError("export: gated LoRA that begins as a part of the weight is two a matrix: not supported")
    with replacing_folder(folder) as temporary:
        _write_parts(temporary, model)
        _add_stops(temporary, stop_ids(model.llm, model.tokenizer, end_id))
        follow_umask(temporary)
        kept = {key: settings[key] for key in ("encoder", "adaptor", "ear", "max_new_tokens") if key in settings}
        adapted = bool(lora_layers(model.llm))
        manifest = {
            "format": FORMAT,
            "model": {**kept, "tuning": _of_llm(settings["tuning"]) if adapted else None},
            "prompts": dict(prompts),
            "origin": dict(origin),
            "versions": {name: version(name) for name in ("textkeep", "torch", "transformers", "peft")},
        }
        (temporary / MANIFEST).write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _of_llm(tuning: Any) -> Any:
    """Returns LoRA's settings without what is said of the parts that are merged: encoder and adaptor."""
    options = tuning.get("init_args") if isinstance(tuning, Mapping) else None
    parts = options.get("parts") if isinstance(options, Mapping) else None
    if not isinstance(tuning, Mapping) or not isinstance(options, Mapping) or not parts:
        return tuning
    return {**tuning, "init_args": {**options, "parts": {"llm": parts["llm"]}}}


def write_text_llm(folder: Path, model: SpeechModel, end_id: int | None = None) -> None:
    """Writes the LLM alone with its tokenizer, as a transformers text LLM, completely or not at all.

    LoRA that cannot be merged is left out: behind a gate it does not act on text.

    Args:
        folder: The target: a new or empty folder.
        model: With its LLM as it is to be written.
        end_id: The token that ends an answer in the chat template.

    Raises:
        FileExistsError: If the target exists and is not empty.
    """
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise FileExistsError(f"{folder} exists; allowed: a new folder for a text LLM")
    with replacing_folder(folder) as temporary:
        _save_weights(model.llm, model.llm, temporary)
        model.tokenizer.save_pretrained(temporary)
        _add_stops(temporary, stop_ids(model.llm, model.tokenizer, end_id))
        follow_umask(temporary)


def _save_weights(whole: Any, llm: Any, folder: Path) -> None:
    """Writes a model without its LLM's LoRA."""
    lora = {"state_dict": without_lora(whole)} if lora_layers(llm) else {}
    whole.save_pretrained(folder, **lora, max_shard_size=SHARD)


def _write_parts(folder: Path, model: SpeechModel) -> None:
    llm: Any = model.llm
    if lora_layers(llm):
        save = {f"{PREFIX}{name}": tensor.contiguous() for name, tensor in get_peft_model_state_dict(llm).items()}
        (folder / LORA).mkdir()
        save_file(save, folder / LORA / "adapter_model.safetensors", metadata={"format": "pt"})
        next(iter(llm.peft_config.values())).save_pretrained(folder / LORA)
    _save_weights(model.ear.whole(llm), llm, folder)
    model.tokenizer.save_pretrained(folder)
    model.ear.save(folder, model)


def _add_stops(folder: Path, stops: list[int]) -> None:
    """Lists all stop tokens in ``generation_config.json``, and keeps the LLM's own sampling settings."""
    path = folder / "generation_config.json"
    config = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    config["eos_token_id"] = stops[0] if len(stops) == 1 else stops
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def load_export(kind: type[Model], folder: Path) -> Model:
    """Loads the model of an export, with its weights, on the CPU.

    Args:
        kind: ``SpeechLLM``, or a subclass.
        folder: Of the export.

    Raises:
        ValueError: If it is damaged.
    """
    from lightning.pytorch.cli import instantiate_module

    manifest = read_manifest(folder)
    model_settings = {key: value for key, value in manifest["model"].items() if value is not None}
    tuning = model_settings.pop("tuning", {"class_path": "textkeep.lightning_modules.AdaptorOnly"})
    config = {**model_settings, "llm": str(folder), "tuning": tuning}
    own_encoder = (folder / ENCODER).is_file()
    if (folder / ADAPTOR).is_file() and not own_encoder:  # an audio LLM contains all its speech parts
        config["adaptor_weights"] = str(folder / ADAPTOR)
    model: Any = instantiate_module(kind, config)
    model.configure_model()
    if own_encoder:  # before the adaptor, which fits no other
        model.encoder.load_state_dict(load_file(folder / ENCODER))
        load_adaptor(folder / ADAPTOR, model.adaptor, model.encoder)
    if (folder / LORA).is_dir():
        weights = load_file(folder / LORA / "adapter_model.safetensors")
        set_peft_model_state_dict(model.llm, {name.removeprefix(PREFIX): tensor for name, tensor in weights.items()})
    return cast(Model, model)
