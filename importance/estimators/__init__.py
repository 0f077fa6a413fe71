"""The estimators: one file each, all of them registered here. See docs/importance.md, *A score of your own*."""

from .ablation import ABLATION
from .fisher import FISHER, FISHER_SAMPLED
from .magnitude import MAGNITUDE
from .registry import ESTIMATORS, checked, register
from .signed_taylor import SIGNED_TAYLOR
from .spec import BlockScore, Finish, ForwardScore, Spec
from .taylor import TAYLOR
from .taylor_batch import TAYLOR_BATCH
from .wanda import WANDA

__all__ = [
    "DEFAULT_ESTIMATORS",
    "ESTIMATORS",
    "OURS",
    "BlockScore",
    "Finish",
    "ForwardScore",
    "Spec",
    "checked",
    "register",
]

register("taylor", TAYLOR)
register("fisher", FISHER)
register("fisher_sampled", FISHER_SAMPLED)
register("signed_taylor", SIGNED_TAYLOR)
register("taylor_batch", TAYLOR_BATCH)
register("wanda", WANDA)
register("magnitude", MAGNITUDE)
register("ablation", ABLATION)
OURS = frozenset(ESTIMATORS)
"""Those of this package; more may be registered."""

DEFAULT_ESTIMATORS = ("taylor", "fisher", "signed_taylor")
