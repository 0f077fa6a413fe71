"""Adaptors: encoder frames to LLM positions."""

from .adaptor import Adaptor
from .concat_mlp import ConcatMLP
from .stack_swiglu import StackSwiGLU
from .stack_transformer import StackTransformer

__all__ = ["Adaptor", "ConcatMLP", "StackSwiGLU", "StackTransformer"]
