"""A module whose checkpoints contain only what was trained, and how it is restored from them."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from lightning.pytorch import LightningModule
from lightning.pytorch.core.saving import _load_state
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from ...foundation.errors import RunError, UserError
from ...foundation.ranks import Ranks, holds_all
from ...foundation.sharded_checkpoint import is_sharded_checkpoint, read_sharded
from ..precision import default_dtype, own_types_kept
from ..tuning import Tuning
from .checkpoints import find_checkpoint, weights_dtype
from .export_folder import is_export, load_export
from .finite_weights import not_finite
from .frozen_state import check_frozen, check_types, drop_frozen, frozen_hash, frozen_names
from .step_boundary import end_at_last_step
from .structure import check_shapes, check_structure, other_weights


class TrainedParts(LightningModule):
    """Saves what was trained and the tuning's state; frozen weights are recorded by a hash and must match on loading.

    Attributes:
        llm: The LLM, once it is loaded.
        tuning: The tuning strategy.
    """

    llm: Any
    tuning: Tuning

    def __init__(self) -> None:
        super().__init__()
        self.strict_loading = False  # frozen weights are not in checkpoints; check_frozen() is stricter
        self._frozen_hash: str | None = None

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Moves and converts like torch; tensors with their own type keep it."""
        with own_types_kept(self):
            return super()._apply(fn, recurse)

    def note_frozen(self) -> None:
        """Hashes the frozen weights now, before something changes their form but not their values."""
        self._frozen_hash = frozen_hash(self.state_dict(), self.left_out())

    def left_out(self) -> set[str]:
        """Names the tensors that checkpoints leave out."""
        return frozen_names(self, self.tuning.frozen_to_save(self.llm))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leaves out what was not trained, adds the tuning's state, and counts only batches that were trained on.

        Raises:
            RunError: On all ranks, if a weight is not finite: the previous checkpoint is worth more.
        """
        if "loops" in checkpoint:
            end_at_last_step(checkpoint, self.trainer.accumulate_grad_batches, self.trainer.max_steps != -1)
        self._frozen_hash = drop_frozen(checkpoint, self, self._frozen_hash, self.tuning.frozen_to_save(self.llm))
        checkpoint["tuning"] = self.tuning.extra_state()
        told = next(filter(None, Ranks().gather(not_finite(checkpoint))), None)  # only rank zero may hold all weights
        if told is not None:
            raise RunError(
                f"no checkpoint of step {checkpoint['global_step']} is written: {told}; the last one is kept"
            )

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuses a checkpoint of another model or without finite weights, and continuing in another precision.

        Raises:
            ValueError: With what differs, in the checkpoint and in the config.
        """
        check_structure(checkpoint, self.hparams)
        if self._is_fitting():
            check_types(checkpoint, self)
        own = {name[4:]: tensor for name, tensor in checkpoint["state_dict"].items() if name.startswith("llm.")}
        self.tuning.match_checkpoint(self.llm, own)
        check_shapes(checkpoint, self, self.hparams)
        try:
            known = None if holds_all(self) else self._frozen_hash
            check_frozen(checkpoint, self, self.tuning.frozen_to_save(self.llm), known)
        except ValueError as error:
            raise ValueError(f"{error}{other_weights(checkpoint, self.hparams)}") from error
        if (told := not_finite(checkpoint)) is not None:
            raise ValueError(
                f"the checkpoint of step {checkpoint['global_step']} is of no use: {told}; allowed: an earlier one"
            )
        self.tuning.load_extra_state(checkpoint.get("tuning", {}))

    def _is_fitting(self) -> bool:
        try:
            return self.trainer.state.fn == TrainerFn.FITTING
        except RuntimeError:  # no Trainer: load_from_checkpoint
            return False

    @classmethod
    def load_from_checkpoint(
        cls,
        checkpoint_path: Any,
        map_location: Any = None,
        hparams_file: Any = None,
        strict: bool | None = None,
        weights_only: bool | None = None,
        **kwargs: Any,
    ) -> Self:
        """Loads a checkpoint file as Lightning does; :meth:`from_run` takes folders too.

        Raises:
            UserError: If it is a folder.
        """
        if isinstance(checkpoint_path, str | Path) and Path(checkpoint_path).is_dir():
            raise UserError(
                f"load_from_checkpoint: {checkpoint_path} is a folder; allowed: a file, or {cls.__name__}.from_run"
            )
        return super().load_from_checkpoint(
            checkpoint_path, map_location, hparams_file, strict, weights_only=weights_only, **kwargs
        )

    @classmethod
    def from_run(cls, run_or_checkpoint: str | Path, map_location: str = "cpu") -> Self:
        """Loads a run directory's last checkpoint, a checkpoint file or an export, in eval mode.

        A checkpoint is loaded in the type of its weights: bfloat16 for ``bf16-true``, including encoder and frozen
        weights.

        Raises:
            FileNotFoundError: If there is no checkpoint.
            ValueError: If the frozen weights are not those it was trained with.
        """
        if is_export(run_or_checkpoint):
            return load_export(cls, Path(run_or_checkpoint)).to(map_location).eval()
        path = find_checkpoint(run_or_checkpoint)
        with warnings.catch_warnings(), default_dtype(weights_dtype(path)):
            # The missing keys are frozen weights, which check_frozen() has compared.
            warnings.filterwarnings("ignore", message="Found keys that are in the model state dict")
            if is_sharded_checkpoint(path):
                loaded: Any = _load_state(cls, read_sharded(path, optimizer=False))
                return loaded.to(map_location).eval()
            model = cls.load_from_checkpoint(path, map_location=map_location, weights_only=True)
        return model.eval()
