"""Ablation: the real effect on the loss of removing a group of weights, which gradients can only predict."""

from __future__ import annotations

from .spec import Spec

ABLATION = Spec(
    "E_i [L_i without the group - L_i]",
    ablated=True,
    source="Wang et al. 2022, arXiv 2211.00593; Li & Janson 2024, arXiv 2409.09951",
)
