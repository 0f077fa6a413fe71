"""How the embedded sets of plain text were made; part of the repository, not of the wheel."""
