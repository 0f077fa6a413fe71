"""Training with the weights, gradients and optimizer state of a model divided among the ranks."""

from .fsdp2 import FSDP2

__all__ = ["FSDP2"]
