"""What logging a measurement of importance costs, for each logger, in one run.

    python -m benchmarks.dashboard_logging                   # 32 layers, 3 estimators, 3 probes, 50 measurements

Wall-clock milliseconds of the calls that ``ImportanceTracker`` makes at a measurement: the scalars (one call per
logger) and, separately, the heat maps (one picture per probe). W&B is offline: online, it hands the same records to the
same process, which sends them in the background.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import statistics
import sys
import tempfile
import time
import types
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
if importlib.util.find_spec("textkeep") is None:  # a checkout that is not installed
    package = types.ModuleType("textkeep")
    package.__path__ = [str(ROOT)]
    sys.modules["textkeep"] = package

ESTIMATORS = ("taylor", "fisher", "signed_taylor")
PROBES = ("indomain_text", "heldout_text", "speech")
METRICS = ("js", "wasserstein", "centre_move", "peak_move", "log_total_ratio", "spearman")


def lines(step: int, layers: int, generator: np.random.Generator) -> list[dict[str, Any]]:
    """Summary lines of one measurement, as the tracker writes them."""
    from textkeep.foundation.run_names import layer_label

    found = []
    for probe in PROBES:
        for estimator in ESTIMATORS:
            shares = generator.dirichlet(np.ones(layers))
            metrics = {name: {"value": 0.1, "null_p95": 0.05} for name in METRICS}
            names = {layer_label(i, len(shares)): float(share) for i, share in enumerate(shares)}
            line = {"step": step, "probe": probe, "estimator": estimator, "loss": 2.0, "total": 1.0, "shares": names}
            found.append({**line, "shift": {"metrics": metrics}})
    return found


def main() -> None:
    """Prints a row per logger."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--measurements", type=int, default=50)
    arguments = parser.parse_args()
    os.environ["WANDB_MODE"] = "offline"

    from lightning.pytorch.loggers import TensorBoardLogger

    from textkeep.callbacks import ResilientWandbLogger, RunCSVLogger
    from textkeep.callbacks.importance.heat_maps import HeatMaps
    from textkeep.foundation.run_names import TRAIN_LOSS
    from textkeep.importance.summary import metric_values

    with tempfile.TemporaryDirectory() as folder:
        loggers = [RunCSVLogger(folder), ResilientWandbLogger(folder), TensorBoardLogger(folder, max_queue=1000)]
        scalars: dict[str, list[float]] = {type(logger).__name__: [] for logger in loggers}
        pictures: dict[str, list[float]] = {name: [] for name in scalars}
        generator, history = np.random.default_rng(0), []
        for logger in loggers:
            logger.log_metrics({TRAIN_LOSS: 1.0}, step=0)  # starting the W&B run is not part of the measurement
        for step in range(arguments.measurements):
            new = lines(step, arguments.layers, generator)
            history += [{**line, "shares": list(line["shares"].values())} for line in new]
            metrics = {key: value for line in new for key, value in metric_values(line).items()}
            for logger in loggers:
                name, began = type(logger).__name__, time.perf_counter()
                logger.log_metrics(metrics, step=step)
                scalars[name].append(1000 * (time.perf_counter() - began))
                began = time.perf_counter()
                HeatMaps(arguments.measurements * 4).log([logger], history, step)
                pictures[name].append(1000 * (time.perf_counter() - began))
        print(f"{len(metrics)} scalars a measurement, {len(PROBES)} pictures; milliseconds")
        print(f"{'logger':22} {'scalars: median':>16} {'first':>7} {'largest later':>14} {'pictures: median':>17}")
        for name, found in scalars.items():
            median, drawn = statistics.median(found), statistics.median(pictures[name])
            print(f"{name:22} {median:16.1f} {found[0]:7.1f} {max(found[1:]):14.1f} {drawn:17.1f}")
        import wandb

        wandb.finish()


if __name__ == "__main__":
    main()
