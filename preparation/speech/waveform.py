"""What a voice produces."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Waveform = NDArray[np.float32]
"""Samples in [-1, 1], (samples,)."""
