"""Moves a checkpoint, whenever it is written, to the end of its last optimizer step.

The weights of a checkpoint are those after the last finished step, but Lightning's counters and the data position may
be further: at the batch that failed, or inside an accumulation window whose gradients are lost with the process. A run
continued from there would skip examples from which nothing was learned. In addition, an epoch cut short by
``max_steps`` or ``max_time`` counts as a whole one.
"""

from __future__ import annotations

from typing import Any


def end_at_last_step(checkpoint: dict[str, Any], accumulate: int, by_steps: bool) -> None:
    """Resets the counters of a checkpoint to the end of its last optimizer step, if they are further.

    The result equals a checkpoint written in ``on_train_batch_end`` of that step, from which Lightning can continue: in
    that hook the batch is processed but not completed, the logged step is not counted yet, and the epoch goes on.
    Lightning also continues from other places, but then counts its logged steps once too often.

    Args:
        checkpoint: Lightning's; ``checkpoint["loops"]["fit_loop"]`` is changed in place.
        accumulate: Batches of an optimizer step.
        by_steps: Whether the run has ``max_steps``; without it, Lightning continues correctly from the end of an epoch.
    """
    loop = checkpoint["loops"].get("fit_loop")
    if loop is None or loop["epoch_loop.batch_progress"]["total"]["ready"] == 0:
        return
    progress, inner, epoch = loop["epoch_loop.batch_progress"], loop["epoch_loop.state_dict"], loop["epoch_progress"]
    current = progress["current"]
    steps = loop["epoch_loop.automatic_optimization.optim_progress"]["optimizer"]["step"]["total"]["completed"]
    loaders = loop["state_dict"].get("combined_loader", [])
    # Lightning marks a batch as the last one before counting it; it may have failed on its way to the device.
    last = progress["is_last_batch"] and all(loader["batches"] == current["ready"] for loader in loaders)
    read_only = current["ready"] - current["processed"]  # 1 if the batch failed
    closed = not read_only and (current["ready"] % accumulate == 0 or last)
    if closed and inner["_batches_that_stepped"] < steps:
        return  # in on_train_batch_end of the step, or in the validation after it
    if epoch["current"]["processed"] == epoch["current"]["started"]:
        if last and not by_steps:
            return
        for counters in (epoch["current"], epoch["total"]):
            counters["processed"] -= 1
            counters["completed"] = counters["processed"]
    unfinished = 0 if closed else read_only + current["processed"] % accumulate
    for counters in (current, progress["total"]):
        end = counters["ready"] - unfinished
        counters.update(ready=end, started=end, processed=end, completed=end - 1)
    progress["is_last_batch"] = closed and last
    inner["_batches_that_stepped"] = steps - 1
    for loader in loaders:
        loader["batches"] = current["ready"]
