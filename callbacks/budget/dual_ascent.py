"""The factor of a remedy that follows a constraint: dual ascent on the logarithm of a multiplier."""

from __future__ import annotations

import math
from dataclasses import dataclass

REACH = 2.0
"""Largest drive of one update: a measurement moves the multiplier by ``exp(REACH * gain)`` at most."""


@dataclass(frozen=True)
class DualAscent:
    r"""Settings of the ascent; the multiplier and the last error are the state, which the caller keeps.

    The constrained problem min L_speech s.t. L_text - L_text(untouched) <= budget has the Lagrangian L_speech + lambda
    (increase - budget); here lambda stands at a remedy that lowers the increase (a penalty, a divergence), whose scale
    is unknown. So it moves in its logarithm, as the adaptive KL control of Ziegler et al. (arXiv 1909.08593, section
    2.2: e_t = clip((KL_t - target) / target, -0.2, 0.2), beta_{t+1} = beta_t (1 + K e_t)), with the proportional term
    of Stooke et al. (arXiv 2007.03964, PID Lagrangian, algorithm 2: lambda_t = (K_P e_t + K_I sum_i e_i)_+) against the
    overshoot of integral control alone:

        e_k         = (increase_k - (1 - margin) budget) / budget
        d_k          = clip(e_k + ahead (e_k - e_{k-1}), -REACH, REACH), at least 0 where e_k > 0
        lambda_{k+1} = clip(lambda_k exp(gain d_k), low, high)

    Summed up, log lambda is gain (sum_i e_i + ahead e_k): K_I is the gain and K_P the gain times ``ahead``. The second
    term also reads as looking ahead: e_k + ahead (e_k - e_{k-1}) is the error ``ahead`` measurements from now, if the
    increase goes on as it did. It may be wrong about a fall, whose rate falls too: above what is aimed at the
    multiplier is never lowered.

    Attributes:
        gain: Of the logarithm, at an error as large as the budget.
        ahead: Measurements that the control looks ahead.
        margin: Part of the budget that is left free: the ascent aims at (1 - margin) budget.
        low: Smallest multiplier.
        high: Largest.
    """

    gain: float
    ahead: float
    margin: float
    low: float
    high: float

    def error(self, increase: float, budget: float) -> float:
        """Returns e: how far the increase is from its target, in units of the budget."""
        return (increase - (1 - self.margin) * budget) / budget

    def step(self, multiplier: float, error: float, before: float) -> float:
        """Returns the next multiplier.

        Args:
            multiplier: The present one.
            error: Now.
            before: At the last measurement.
        """
        drive = max(0.0 if error > 0 else -REACH, min(REACH, error + self.ahead * (error - before)))
        return min(max(multiplier * math.exp(self.gain * drive), self.low), self.high)
