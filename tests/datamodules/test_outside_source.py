"""A source that this package does not hold: named in YAML, read by SpeechTextData, batched like the others."""

from __future__ import annotations

import inspect
import pkgutil
from importlib import import_module
from pathlib import Path

import jsonargparse
import pytest

from textkeep import datamodules
from textkeep.datamodules import Source, SpeechTextData, sources

from .conftest import EnergyFrontEnd

MODULE = '''
from textkeep.datamodules import Example, Source


class Sums(Source):
    """Questions that no file holds."""

    name = "sums"

    def __init__(self, count: int = 3, first: int = 0) -> None:
        self.numbers = range(first, first + count)

    def read(self, bad, answers_required=True):
        rows = [(n, f"What is {n} plus {n}?", str(2 * n)) for n in self.numbers]
        return [Example(f"sum-{n}", question, (answer,), answer, source=self.name) for n, question, answer in rows]
'''

CONFIG = """
data:
  train: {class_path: sums_of_mine.Sums, init_args: {count: 5}}
  val: [{class_path: sums_of_mine.Sums, init_args: {first: 5}}, spoken-facts/validation]
  train_modalities: text
  eval_limit: 4
  probes: {sums: {source: {class_path: sums_of_mine.Sums}, modality: text, examples: 2}}
"""


def test_a_source_from_outside_is_read_by_its_class_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, front_end: EnergyFrontEnd
) -> None:
    (tmp_path / "sums_of_mine.py").write_text(MODULE)
    (tmp_path / "config.yaml").write_text(CONFIG)
    monkeypatch.syspath_prepend(tmp_path)
    parser = jsonargparse.ArgumentParser()
    parser.add_class_arguments(SpeechTextData, "data")
    parser.add_argument("--config", action="config")
    data: SpeechTextData = parser.instantiate(parser.parse_args(["--config", str(tmp_path / "config.yaml")]))["data"]
    data.connect(front_end)
    data.setup("fit")
    batches = list(data.train_dataloader())
    assert sorted(i for batch in batches for i in batch.ids) == [f"sum-{n}" for n in range(5)]
    assert {example.source for batch in batches for example in batch.examples} == {"sums"}
    assert len(data.examples("val")) == 4
    assert len(data.probe_batches("sums")[0]) == 2


def test_every_source_of_the_folder_is_public_through_its_one_list() -> None:
    modules = [import_module(f"{sources.__name__}.{found.name}") for found in pkgutil.iter_modules(sources.__path__)]
    defined = {
        name: value
        for module in modules
        for name, value in vars(module).items()
        if inspect.isclass(value) and issubclass(value, Source) and value.__module__ == module.__name__
    }
    assert len(defined) > 4
    assert set(defined) <= set(sources.__all__)
    for name in sources.__all__:  # what the folder lists, the package shows
        assert name in datamodules.__all__
        assert vars(datamodules)[name] is getattr(sources, name)  # imported, so that type checkers see it too
