"""Every schedule of transformers works by name or is refused when the model is built."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch.optim.lr_scheduler import LambdaLR
from transformers import SchedulerType

from textkeep.lightning_modules.schedule import NAMES, Schedule

NEEDED: dict[str, dict[str, Any]] = {
    "cosine_with_min_lr": {"min_lr_rate": 0.1},
    "cosine_warmup_with_min_lr": {"min_lr_rate": 0.1},
    "warmup_stable_decay": {"num_decay_steps": 20},
}
ENDLESS = {"constant": {}, "constant_with_warmup": {"num_warmup_steps": 3}, "inverse_sqrt": {"num_warmup_steps": 3}}


def optimizer() -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)


def rates(schedule: LambdaLR, steps: int) -> list[float]:
    return [schedule.lr_lambdas[0](step) for step in range(steps)]


@pytest.mark.parametrize("name", [kind.value for kind in SchedulerType])
def test_every_name_works_or_is_refused_with_the_allowed_ones(name: str) -> None:
    if name not in NAMES:
        with pytest.raises(ValueError, match=f"'{name}' is none; allowed: constant, .*warmup_stable_decay"):
            Schedule(name)
        return
    found = rates(Schedule(name, 0.1, NEEDED.get(name)).build(optimizer(), 100), 100)
    assert all(math.isfinite(rate) and 0 <= rate <= 1 for rate in found)
    assert max(found) == pytest.approx(1, abs=0.02)
    if name != "constant":
        assert found[0] == (0.1 if name == "cosine_warmup_with_min_lr" else 0)
        assert found[:10] == sorted(found[:10])


def test_settings_reach_the_schedule() -> None:
    cosine = rates(Schedule("cosine_with_min_lr", 0, {"min_lr_rate": 0.25}).build(optimizer(), 100), 101)
    expected = [0.25 + 0.75 * 0.5 * (1 + math.cos(math.pi * step / 100)) for step in range(101)]
    assert cosine == pytest.approx(expected)
    stable = rates(Schedule("warmup_stable_decay", 0.1, {"num_decay_steps": 20}).build(optimizer(), 100), 101)
    assert set(stable[10:80]) == {1.0}
    assert stable[100] == pytest.approx(0, abs=1e-6)
    warm = rates(Schedule("linear", 0.5, {"num_warmup_steps": 4}).build(optimizer(), 100), 5)
    assert warm == [0, 0.25, 0.5, 0.75, 1]


REFUSED: dict[str, tuple[tuple[Any, ...], str]] = {
    "a name": (("cosin",), "lr_schedule: 'cosin' is none; allowed: constant, "),
    "a part of five": (("cosine", 5.0), "warmup_ratio: 5.0 is no part of the run; allowed: 0 to 1"),
    "a negative part": (("cosine", -0.1), "warmup_ratio: -0.1 is no part"),
    "not a number": (("cosine", math.nan), "warmup_ratio: nan is no part"),
    "an option of another": (("cosine", 0, {"min_lr": 1}), "cosine has no option 'min_lr'; allowed: num_cycles, num_w"),
    "none allowed": (("constant", 0, {"a": 1}), "constant has no option 'a'; allowed: none"),
    "a missing option": (("cosine_with_min_lr",), r"cosine_with_min_lr does not work .*its options: .*min_lr_rate"),
    "decay without length": (("warmup_stable_decay",), r"warmup_stable_decay does not work .*num_decay_steps"),
    "a wrong type": (("cosine", 0, {"num_cycles": "x"}), "cosine does not work with lr_schedule_options"),
    "a negative rate": (("polynomial", 0, {"lr_end": -1.0}), "polynomial does not work .*factor of step .* is -"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_wrong_setting_is_refused_at_construction(case: str) -> None:
    arguments, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        Schedule(*arguments)


@pytest.mark.parametrize("name", NAMES)
def test_a_run_without_end_needs_a_schedule_without_end(name: str) -> None:
    schedule = Schedule(name, 0.1, NEEDED.get(name))
    if not schedule.endless:
        with pytest.raises(ValueError, match=rf"{name} must know how many steps .* give trainer\.max_steps"):
            schedule.build(optimizer(), math.inf)
    if name in ENDLESS:
        endless = Schedule(name, 0.1, ENDLESS[name])
        assert rates(endless.build(optimizer(), math.inf), 5) == rates(endless.build(optimizer(), 1000), 5)


def test_parts_that_are_longer_than_the_run_are_told() -> None:
    schedule = Schedule("warmup_stable_decay", 0.1, {"num_decay_steps": 200})
    with pytest.warns(UserWarning, match="the parts of warmup_stable_decay need 210 steps, the run has 100"):
        schedule.build(optimizer(), 100)
