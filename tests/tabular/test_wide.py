"""Tables of a thousand columns, end to end in a few steps."""

import numpy as np
import pandas as pd
import pytest

from de_plugins.tabular import TableSynthesizer


@pytest.mark.parametrize("kind", ["numbers", "classes"])
def test_a_thousand_columns_are_learnt_drawn_and_filled(kind):
    """Nine cells in ten are 0, as in a table of counts or of indicators."""
    rng, n, p = np.random.default_rng(0), 200, 1000
    cells = rng.normal(size=(n, p)).round(3) if kind == "numbers" else rng.integers(1, 3, (n, p))
    cells = np.where(rng.random((n, p)) < 0.9, 0, cells)
    table = pd.DataFrame(cells, columns=[f"c{k}" for k in range(p)])
    synth = TableSynthesizer(max_steps=2, progress=False).fit(table)
    assert 0 < synth.parameters <= 64_000
    drawn = synth.sample(20, steps=4)
    assert list(drawn.columns) == list(table.columns)
    assert (drawn.dtypes == table.dtypes).all()
    assert (drawn.min() >= table.min()).all()
    assert (drawn.max() <= table.max()).all()
    holes = table.head(10).astype(float).mask(rng.random((10, p)) < 0.2)
    filled = synth.impute(holes, steps=4)
    assert filled.notna().all(axis=None)
    assert (filled == holes).to_numpy()[holes.notna().to_numpy()].all()
