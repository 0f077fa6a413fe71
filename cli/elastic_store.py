"""Where the ranks of a torchrun attempt meet."""

from __future__ import annotations

import os

from torch.distributed import TCPStore

_served: list[TCPStore] = []
"""Rank zero's stores, kept alive: a store that is garbage-collected stops listening."""


def leave_agents_store() -> None:
    """Lets ranks restarted by torchrun meet in their own store instead of their agent's.

    The agent serves one store to all attempts, and PyTorch takes it for a new one: a rank that arrives before rank zero
    would find the addresses of dead processes and fail (gloo: ``Connection refused``).
    """
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    if attempt == "0" or os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != str(True):
        return
    agents = TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False)
    key = f"textkeep/port of attempt {attempt}"
    if os.environ["RANK"] == "0":
        # It listens from now on, so that no other process can get its port; torch finds and shares it.
        host = os.environ["MASTER_ADDR"]
        _served.append(TCPStore(host, 0, is_master=True, wait_for_workers=False, multi_tenant=True))
        agents.set(key, str(_served[-1].port))
    os.environ["MASTER_PORT"] = agents.get(key).decode()  # waits for rank zero
    os.environ["TORCHELASTIC_USE_AGENT_STORE"] = str(False)
