"""Where the ranks of an attempt of torchrun meet."""

from __future__ import annotations

import os

from torch.distributed import TCPStore

_served: list[TCPStore] = []
"""Rank zero's stores: one that nothing refers to any more would stop listening."""


def leave_agents_store() -> None:
    """Lets ranks that torchrun has restarted meet in a store of their own, instead of their agent's.

    The agent serves one store to all attempts, and PyTorch takes it for a new one: a rank that is there before rank
    zero would find the addresses of processes that are gone, and fail (gloo: ``Connection refused``).
    """
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    if attempt == "0" or os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != str(True):
        return
    agents = TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False)
    key = f"textkeep/port of attempt {attempt}"
    if os.environ["RANK"] == "0":
        # It listens from now on, so no other process can be given its port. torch finds it there and shares it.
        host = os.environ["MASTER_ADDR"]
        _served.append(TCPStore(host, 0, is_master=True, wait_for_workers=False, multi_tenant=True))
        agents.set(key, str(_served[-1].port))
    os.environ["MASTER_PORT"] = agents.get(key).decode()  # waits for rank zero
    os.environ["TORCHELASTIC_USE_AGENT_STORE"] = str(False)
