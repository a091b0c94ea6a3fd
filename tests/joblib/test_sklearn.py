"""scikit-learn on a pool gives the results that it gives here."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from tests.needs import require_module
from tests.python.pools import PoolService


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PoolService]:
    require_module("joblib", "sklearn")
    with PoolService(tmp_path_factory.mktemp("pool")) as started:
        yield started


@pytest.fixture
def joblib(pool: PoolService) -> Any:
    import joblib

    import cexec.joblib  # noqa: F401 - registers the backend

    return joblib


def test_searches_and_scores_are_equal(joblib: Any, pool: PoolService) -> None:
    import numpy
    from sklearn.datasets import make_classification
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.model_selection import GridSearchCV, cross_val_score
    from sklearn.tree import DecisionTreeClassifier

    inputs, classes = make_classification(n_samples=300, random_state=0)
    assert inputs.nbytes > 20_000

    def compute() -> tuple[dict[str, Any], Any, Any, Any]:
        search = GridSearchCV(DecisionTreeClassifier(random_state=0), {"max_depth": [1, 2, 4]}, cv=3)
        search.fit(inputs, classes)
        # A forest within a score: Parallel inside Parallel.
        forest = RandomForestClassifier(6, random_state=0, n_jobs=2)
        scores = cross_val_score(forest, inputs, classes, cv=3)
        importances = RandomForestClassifier(6, random_state=0).fit(inputs, classes).feature_importances_
        return search.cv_results_, search.best_params_, scores, importances

    here = compute()
    with joblib.parallel_config(backend="cexec", key=pool.key, max_nbytes=20_000):
        there = compute()
        processes = set(joblib.Parallel()(joblib.delayed(os.getpid)() for _ in range(4)))
    assert os.getpid() not in processes
    assert here[0].keys() == there[0].keys() and len(here[0]) > 8
    for name in here[0]:
        if "time" not in name:
            assert numpy.array_equal(here[0][name], there[0][name]), name
    assert here[1] == there[1]
    assert numpy.array_equal(here[2], there[2]) and numpy.array_equal(here[3], there[3])
