"""Whether a checkpoint and a config describe the same model; if not, one line with both values."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

STRUCTURE = ("tuning", "adaptor", "encoder", "ear")
"""Arguments of the model that define its structure."""
FREE = {"adaptor_lr", "rates", "dropout", "snapshot", "source"}
"""Settings inside them for learning rates and file locations (contents are checked by hash). These may change."""
DEFAULT_TUNING = {"class_path": "FullFineTuning", "init_args": {}}
"""What ``model.tuning: null`` means."""
DERIVED: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "alpha": lambda options: 2 * options["r"] if "r" in options else None
}
"""What null stands for if it depends on another option: LoRA's scale."""
WEIGHTS = ("llm", "encoder.source")
MOST_SHOWN = 3


def check_structure(checkpoint: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Refuses a checkpoint whose model was built differently.

    Names and shapes of tensors are not enough: LoRA's alpha, a gate or an encoder's layer change what the same tensors
    do, and LoRA adopts the ranks that it finds.

    Args:
        checkpoint: Lightning's; ``hyper_parameters`` are the model's arguments as the command line stores them.
        settings: Those of the model to load it into.

    Raises:
        ValueError: With the values in the checkpoint and in the config.
    """
    saved, given = {**checkpoint.get("hyper_parameters", {})}, {**settings}
    if "tuning" in saved and "tuning" in given:
        saved["tuning"], given["tuning"] = saved["tuning"] or DEFAULT_TUNING, given["tuning"] or DEFAULT_TUNING
    known = [name for name in STRUCTURE if name in saved and name in given]
    changes = [change for name in known for change in _changes(name, saved[name], given[name])]
    if changes:
        raise ValueError(f"the checkpoint is of another model: {_listed(changes)}")


def check_shapes(checkpoint: Mapping[str, Any], module: nn.Module, settings: Mapping[str, Any]) -> None:
    """Refuses a checkpoint whose tensor shapes differ from the module's.

    Raises:
        ValueError: With a name, both shapes, and the LLM and encoder if their names differ.
    """
    own = module.state_dict()
    saved: Mapping[str, Tensor] = checkpoint["state_dict"]
    odd = [name for name in saved if name in own and saved[name].shape != own[name].shape]
    if odd:
        first, here = tuple(saved[odd[0]].shape), tuple(own[odd[0]].shape)
        raise ValueError(
            f"the checkpoint does not fit this model: '{odd[0]}' is {first} in it and {here} here "
            f"({len(odd)} such names){other_weights(checkpoint, settings)}"
        )


def other_weights(checkpoint: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    """Returns the names of LLM and encoder in the checkpoint and in the config if they differ, otherwise nothing."""
    saved = checkpoint.get("hyper_parameters", {})
    pairs = [(name, _value(saved, name), _value(settings, name)) for name in WEIGHTS]
    changes = [_both(name, old, new) for name, old, new in pairs if old != new and None not in (old, new)]
    return f"; {_listed(changes)}" if changes else ""


def _value(settings: Mapping[str, Any], name: str) -> Any:
    part, _, option = name.partition(".")
    value = settings.get(part)
    return _options(value).get(option) if option else value


def _changes(name: str, saved: Any, given: Any) -> Iterator[str]:
    """Yields the differences below a setting, except in settings unknown to one side (newer than the file)."""
    if _is_class(saved) and _is_class(given):
        if _kind(saved) != _kind(given):
            yield _both(name, _kind(saved), _kind(given))
            return
        old, new = _options(saved), _options(given)
        for option in old:
            if option in new and option not in FREE and _meant(option, old) != _meant(option, new):
                yield from _changes(f"{name}.{option}", old[option], new[option])
    elif _is_class(saved) or _is_class(given):
        if all(value is None or _is_class(value) for value in (saved, given)):
            yield _both(name, _kind(saved), _kind(given))
    elif _plain(saved) and _plain(given) and _comparable(saved) != _comparable(given):
        yield _both(name, saved, given)


def _meant(option: str, options: Mapping[str, Any]) -> Any:
    value = options[option]
    return DERIVED[option](options) if value is None and option in DERIVED else value


def _is_class(value: Any) -> bool:
    """Returns whether a setting is a ``class_path`` with ``init_args``, as the command line stores a part."""
    return isinstance(value, Mapping) and "class_path" in value


def _kind(value: Any) -> str | None:
    """Returns the name of the class; its module may have moved."""
    return str(value["class_path"]).rpartition(".")[2] if _is_class(value) else None


def _options(value: Any) -> Mapping[str, Any]:
    options = value.get("init_args") if isinstance(value, Mapping) else None
    return options if isinstance(options, Mapping) else {}


def _plain(value: Any) -> bool:
    """Returns whether a setting is plain data; a part built in Python is stored as it is and not compared."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return all(_plain(part) for part in value)
    return value is None or isinstance(value, bool | int | float | str)


def _comparable(value: Any) -> Any:
    return [_comparable(part) for part in value] if isinstance(value, list | tuple) else value


def _both(name: str, saved: Any, given: Any) -> str:
    return f"model.{name} is {_shown(saved)} in the checkpoint and {_shown(given)} in the config"


def _shown(value: Any) -> str:
    return "null" if value is None else str(value)


def _listed(changes: Sequence[str]) -> str:
    more = f" (and {len(changes) - MOST_SHOWN} more)" if len(changes) > MOST_SHOWN else ""
    return "; ".join(changes[:MOST_SHOWN]) + more
