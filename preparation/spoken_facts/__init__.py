"""How the embedded data set and the alignment texts were made; part of the repository, not of the wheel."""
