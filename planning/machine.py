"""The machine that a run is planned for."""

from __future__ import annotations

from dataclasses import dataclass

GIB = 2**30


@dataclass(frozen=True)
class Machine:
    """GPUs, their memory and their speed.

    Attributes:
        gpus: A node.
        nodes: How many.
        memory: Bytes of a GPU; None does not judge.
        spare: Share of them that is left to the CUDA context, libraries and fragmentation.
        tflops: Highest speed of a GPU in the type of the run, 10^12 operations a second; H100 SXM: 989 in bfloat16.
        utilisation: Share of that speed that a run reaches.
    """

    gpus: int = 1
    nodes: int = 1
    memory: int | None = None
    spare: float = 0.1
    tflops: float = 989.0
    utilisation: float = 0.35

    @property
    def ranks(self) -> int:
        """Processes of a run."""
        return self.gpus * self.nodes

    @property
    def usable(self) -> int | None:
        """Bytes of a GPU that tensors may take."""
        return None if self.memory is None else int(self.memory * (1 - self.spare))

    def seconds(self, flops: float) -> float:
        """Returns the time that so many operations take on one GPU."""
        return flops / (self.tflops * 1e12 * self.utilisation)
