"""Where the ranks of an attempt of torchrun meet."""

from __future__ import annotations

import os
import socket

from torch.distributed import TCPStore


def leave_agents_store() -> None:
    """Lets the ranks that torchrun has started again meet in a store of their own, and not in that of its agent.

    The agent serves one store to all attempts, and PyTorch takes it for a new one: a rank that is there before rank
    zero would find the addresses of processes that are gone, and fail (gloo: ``Connection refused``).
    """
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    if attempt == "0" or os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != str(True):
        return
    agents = TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False)
    key = f"textkeep/port of attempt {attempt}"
    if os.environ["RANK"] == "0":
        agents.set(key, str(_free_port()))
    os.environ["MASTER_PORT"] = agents.get(key).decode()  # waits for rank zero
    os.environ["TORCHELASTIC_USE_AGENT_STORE"] = str(False)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])
