"""The trees over the signals: what `benchmarks/learn.py` writes is what the package reads."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from integration_tests.benchmarks import learn
from langchain_memlayer.recall import learned

pytest.importorskip("lightgbm")


def test_trees_that_are_written_and_read_give_what_lightgbm_gives(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    asked = []
    for _ in range(40):
        rows = rng.random((60, len(learned.FEATURES)), dtype=np.float32)
        sums = rng.random(60, dtype=np.float32)
        right = rows[:, 0] + rows[:, 1] * rows[:, 2] + 0.3 * sums > 1.4
        asked.append(learn.Asked(rows, sums, right))
    booster = learn.fitted(asked)
    learn.save(tmp_path / "trees.npz", booster, "made")
    trees = learned.Trees.load(tmp_path / "trees.npz")
    unseen = rng.random((500, len(learned.FEATURES)), dtype=np.float32)
    assert trees.sums(unseen) == pytest.approx(booster.predict(unseen) / learn.SCALE, abs=1e-5)


def test_the_file_of_the_package_was_made_by_this_script_and_for_these_features() -> None:
    with np.load(learned.FILE, allow_pickle=False) as data:
        parameters = learn.PARAMETERS | {"trees": learn.TREES, "scale": learn.SCALE, "best": learned.BEST}
        assert json.loads(str(data["parameters"])) == parameters
        assert data["features"].tolist() == list(learned.FEATURES)
        assert len(data["value"]) == learn.TREES
