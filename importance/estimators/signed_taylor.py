"""Taylor of whole matrices: signs may cancel inside a matrix, but not between examples."""

from __future__ import annotations

from .spec import Spec

SIGNED_TAYLOR = Spec("E_i |<theta, g_i>|", signed=True, source="per matrix; SynFlow, arXiv 2006.05467")
