"""Size and power of the paired test of a shift, and how often its intervals cover, on simulated examples.

    python -m benchmarks.null                                        # the table of docs/results/importance.md
    python -m benchmarks.null --parts 0 --trials 2000                # its rows without a shift
    python -m benchmarks.null --ablation --trials 300                # of the intervals of an ablation's shift
    python -m benchmarks.null --ranks 30 64 --trials 300             # how often `verify` finds a score better than luck
    python -m benchmarks.null --fit BEFORE AFTER                     # two snapshots of one probe: benchmarks/null.json

Examples are log-normal: the layers of an example share most of their size, before and after share nearly all of it, and
the difference is a change common to all examples (the shift, as a fraction of the measured one) plus noise in each.
Means, spreads and correlations are those of real snapshots, in ``null.json``. Effects of an ablation are signed, and
many groups cost nothing: three invented worlds (``WORLDS``). It runs on one thread.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
if importlib.util.find_spec("textkeep") is None:  # a checkout that is not installed
    package = types.ModuleType("textkeep")
    package.__path__ = [str(ROOT)]
    sys.modules["textkeep"] = package

from textkeep.importance.intervals import paired_intervals  # noqa: E402
from textkeep.importance.metrics import METRICS  # noqa: E402
from textkeep.importance.permutation import Fold, as_it_is, paired_permutation  # noqa: E402

PROFILE = Path(__file__).with_name("null.json")
EXAMPLES = (8, 16, 24, 32, 64)
PARTS = (0.0, 0.1, 0.25, 0.5, 1.0)  # of the shift that was measured
SHOWN = ("js", "wasserstein", "centre_move", "log_total_ratio")
DRAWS, REPLICATES = 199, 300


def fit(before: np.ndarray, after: np.ndarray) -> dict[str, list[float]]:
    """Means, spreads and the shared part (first principal component) of log totals (N, L) and of their changes."""
    logs, changes = np.log(before), np.log(after) - np.log(before)
    found = {"mean": logs.mean(0), "change": changes.mean(0)}
    for name, values in (("level", logs), ("noise", changes)):
        centred = values - values.mean(0)
        _, sizes, directions = np.linalg.svd(centred, full_matrices=False)
        shared = sizes[0] / np.sqrt(len(values) - 1) * directions[0]
        found[f"{name}_shared"] = shared
        found[f"{name}_own"] = np.sqrt(np.maximum(centred.var(0, ddof=1) - shared**2, 0))
    return {name: np.round(values, 5).tolist() for name, values in found.items()}


def draw(
    profile: dict[str, np.ndarray], examples: int, part: float, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Totals (N, L) before and after; with ``part`` 0 the two are exchangeable within examples."""

    def noise(name: str) -> np.ndarray:
        common = generator.normal(size=(examples, 1)) * profile[f"{name}_shared"]
        return common + generator.normal(size=(examples, len(profile["mean"]))) * profile[f"{name}_own"]

    level, half = profile["mean"] + noise("level"), (part * profile["change"] + noise("noise")) / 2
    return np.exp(level - half), np.exp(level + half)


def truth(profile: dict[str, np.ndarray], part: float) -> dict[str, float]:
    """The limit of the figures with more and more examples, from the means of the log-normal totals."""
    spread = sum(profile[f"level_{kind}"] ** 2 + profile[f"noise_{kind}"] ** 2 / 4 for kind in ("shared", "own")) / 2
    middle, half = profile["mean"] + spread, part * profile["change"] / 2
    return {name: float(METRICS[name](np.exp(middle - half), np.exp(middle + half))) for name in SHOWN}


def simulate(
    profile: dict[str, np.ndarray], examples: int, part: float, trials: int, seed: int = 0
) -> dict[str, dict[str, float]]:
    """Simulates totals of a gradient's score (:func:`tried`)."""
    generator = np.random.default_rng([seed, examples, round(1000 * part)])
    return tried(lambda: draw(profile, examples, part, generator), truth(profile, part), trials, generator)


def tried(
    drawn: Callable[[], tuple[np.ndarray, np.ndarray]],
    true: dict[str, float],
    trials: int,
    generator: np.random.Generator,
    fold: Fold = as_it_is,
) -> dict[str, dict[str, float]]:
    """Means over the trials, by metric: value, noise alone, value without it, rejections at 5 %, coverage at 90 %."""
    rows: dict[str, list[Any]] = {name: [] for name in SHOWN}
    for trial in range(trials):
        pair = drawn()
        test = paired_permutation(*pair, DRAWS, seed=trial, fold=fold)
        limits, _ = paired_intervals(*pair, REPLICATES, generator, fold)
        means = [fold(side.mean(0)) for side in pair]
        for name, found in rows.items():
            value = float(METRICS[name](*means))
            low, high = limits[name]
            covered = low - 1e-12 <= true[name] <= high + 1e-12
            left = test.corrected.get(name, value)
            found.append((value, test.expected[name], left, test.p[name] <= 0.05, covered))
    keys = ("value", "noise", "left", "rejected", "covered")
    return {
        n: dict(zip(keys, np.mean(found, axis=0).tolist(), strict=True)) | {"true": true[n]}
        for n, found in rows.items()
    }


@dataclass(frozen=True)
class World:
    """Effects of removing groups: many cost nothing, examples differ, the rest matter most in the outer layers.

    Attributes:
        groups: Of each of the 30 layers.
        idle: Fraction of the groups that cost next to nothing.
        noise: Spread over examples of a null effect, nats; other effects are typically 0.03 to 0.05.
    """

    groups: int
    idle: float
    noise: float

    def simulate(self, examples: int, part: float, trials: int, seed: int = 0) -> dict[str, dict[str, float]]:
        """Simulates the shift of these effects (:func:`tried`); the underlying means are the same for every seed."""
        layers, fixed = 30, np.random.default_rng(5)
        count = layers * self.groups
        slope = np.repeat(np.linspace(1.0, -1.0, layers), self.groups)
        mean = 0.02 * np.exp(slope**2 + fixed.normal(size=count))
        mean = np.where(fixed.random(count) < self.idle, 0.0005 * fixed.normal(size=count), mean)
        change = part * (-0.4 * slope + 0.2 * fixed.normal(size=count)) / 2
        spread, member = self.noise + 0.6 * np.abs(mean), np.repeat(np.eye(layers), self.groups, axis=0)
        sides = [mean * np.exp(sign * change) for sign in (-1, 1)]
        generator = np.random.default_rng([seed, examples, round(1000 * part)])

        def fold(means: np.ndarray) -> np.ndarray:
            return np.maximum(means, 0.0) @ member

        def drawn() -> tuple[np.ndarray, np.ndarray]:
            size, shared = 1 + 0.4 * generator.normal(size=(examples, 1)), generator.normal(size=(examples, count))
            own = [shared + 0.5 * generator.normal(size=(examples, count)) for _ in sides]
            first, second = (side * size + spread * noise / 1.25**0.5 for side, noise in zip(sides, own, strict=True))
            return first, second

        totals = [fold(side) for side in sides]
        true = {name: float(METRICS[name](*totals)) for name in SHOWN}
        return tried(drawn, true, trials, generator, fold)


WORLDS = {"layers": World(1, 0.4, 0.03), "matrices": World(7, 0.5, 0.01), "heads": World(9, 0.8, 0.03)}


def found_better(groups: int, rho: float, trials: int, seed: int = 0) -> float:
    """How often the report judges a score with true rank correlation ``rho`` better than random ones."""
    generator, found = np.random.default_rng([seed, groups]), 0
    luck = METRICS["spearman"](generator.random((4000, groups)), generator.random((4000, groups)))
    slope = 2 * np.sin(np.pi * rho / 6)  # of the normal pair with that rank correlation (Pearson 1907)
    for _ in range(trials):
        score = generator.normal(size=groups)
        effect = slope * score + np.sqrt(1 - slope**2) * generator.normal(size=groups)
        drawn = generator.integers(groups, size=(300, groups))
        low = np.percentile(METRICS["spearman"](score[drawn], effect[drawn]), 5)
        found += int(low > np.percentile(luck, 95))
    return found / trials


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(prog="benchmarks.null", description=__doc__)
    parser.add_argument("--fit", nargs=2, type=Path, metavar=("BEFORE", "AFTER"), help="snapshots of one probe")
    parser.add_argument("--parts", type=float, nargs="+", default=PARTS, help="of the shift that was measured")
    parser.add_argument("--trials", type=int, default=500)
    parser.add_argument("--ablation", action="store_true", help="instead: the shift of an ablation")
    parser.add_argument("--ranks", type=int, nargs="+", metavar="GROUPS", help="instead: power of `verify`")
    options = parser.parse_args(argv)
    if options.ranks:
        for groups in options.ranks:
            power = {rho: found_better(groups, rho, options.trials) for rho in (0.4, 0.5, 0.6, 0.7, 0.8)}
            print(f"{groups} groups: " + ", ".join(f"{rho}: {100 * share:.0f} %" for rho, share in power.items()))
        return
    if options.fit:
        from textkeep.importance import Snapshot

        sides = [Snapshot.load(folder) for folder in options.fit]
        totals = [side.per_example("taylor") @ side.membership("taylor")[1] for side in sides]
        PROFILE.write_text(json.dumps(fit(*totals), indent=1) + "\n", encoding="utf-8")
        return
    if options.ablation:
        for kind, world in WORLDS.items():
            print_table(lambda n, part, w=world: w.simulate(n, part, options.trials), options.parts, kind)
        return
    profile = {name: np.array(values) for name, values in json.loads(PROFILE.read_text(encoding="utf-8")).items()}
    print_table(lambda n, part: simulate(profile, n, part, options.trials), options.parts)


def print_table(
    found_of: Callable[[int, float], dict[str, dict[str, float]]], parts: Sequence[float], kind: str = "examples"
) -> None:
    """Prints a row for each number of examples and part of the shift."""
    print(
        f"| {kind} | shift | JS: true | measured | noise alone | without it | "
        + " | ".join(f"{name}: p <= 5 %, covered" for name in SHOWN)
        + " |"
    )
    print("| --- " * (6 + len(SHOWN)) + "|")
    for examples in EXAMPLES:
        for part in parts:
            found = found_of(examples, part)
            js = found["js"]
            tests = [f"{100 * m['rejected']:.1f} %, {100 * m['covered']:.0f} %" for m in found.values()]
            figures = [f"{js[key]:.4f}" for key in ("true", "value", "noise", "left")]
            print("| " + " | ".join([str(examples), f"{part:g}", *figures, *tests]) + " |", flush=True)


if __name__ == "__main__":
    main()
