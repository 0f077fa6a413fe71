"""The directions in which a weight is strongest, and how much of an update goes into them."""

from __future__ import annotations

import torch
from torch import Tensor


@torch.no_grad()
def top_subspace(weight: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Finds the first k left and right singular vectors of a matrix, exact to float32 (float64 to float64).

    From the eigenvectors of the smaller Gram matrix in float64: singular values of language models lie so close that a
    randomised SVD misses part of the subspace.

    Args:
        weight: (out, in).
        k: Less than the smaller side.

    Returns:
        U (out, k) and V (in, k), orthonormal, at least float32, on the weight's device.

    Raises:
        ValueError: If k is not in range.
    """
    if not 1 <= k < min(weight.shape):
        raise ValueError(
            f"subspace: k is {k}, but must be at least 1 and less than {min(weight.shape)}, the smaller side of a "
            f"{tuple(weight.shape)} matrix"
        )
    if weight.shape[0] < weight.shape[1]:
        right, left = top_subspace(weight.T, k)
        return left, right
    matrix = weight.double()
    _, vectors = torch.linalg.eigh(matrix.T @ matrix)
    v = vectors[:, -k:].flip(1)
    u, triangle = torch.linalg.qr(matrix @ v)  # orthogonal already, but for rounding
    dtype = torch.promote_types(weight.dtype, torch.float32)
    return (u * triangle.diagonal().sign()).to(dtype), v.to(dtype)


def interference(update: Tensor, left: Tensor) -> float:
    r"""Measures the part of an update in a protected subspace: rho_k of OPLoRA (arXiv 2510.13003).

    :math:`\rho_k = \|U_k U_k^T \Delta W\|_F^2 / \|\Delta W\|_F^2`, as a digest of the paper gives it:
    from 0 (none) to 1 (all); k / out for a random update.

    Args:
        update: (out, in).
        left: U_k, (out, k), orthonormal.

    Returns:
        rho_k; 0 without an update.
    """
    update = update.to(torch.promote_types(update.dtype, torch.float32))
    whole = update.square().sum()
    inside = (left.T.to(update) @ update).square().sum()
    return float(inside / whole) if whole > 0 else 0.0
