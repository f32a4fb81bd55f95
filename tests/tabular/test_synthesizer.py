"""Learning, drawing, filling and bounding tables; laws of the process behind them."""

import json
import math

import numpy as np
import pandas as pd
import pytest
import torch

from de_core import DiffuseError, Given, NoisyGuidance
from de_core.artifact import save_artifact
from de_plugins.tabular import TableCodec, TableSynthesizer, process
from de_plugins.tabular.process import (
    TableSource,
    absent_nats,
    rows_of,
)
from de_plugins.tabular.schema import Schema

N = 400


def people(n: int = N, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "height": rng.normal(170, 10, n),
            "kids": rng.integers(0, 5, n),
            "town": rng.choice(["Ulm", "Bonn", "Kiel"], n),
            "owner": rng.random(n) < 0.3,
            "debt": np.where(rng.random(n) < 0.5, 0.0, rng.exponential(size=n)),
            "since": pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.integers(0, 900, n), unit="D"),
            "score": np.where(rng.random(n) < 0.1, np.nan, rng.normal(size=n)),
            "planet": "Earth",
        }
    )
    frame["rank"] = pd.Categorical(rng.choice(["lo", "hi"], n), categories=["lo", "hi", "never"], ordered=True)
    return frame


def quick(**params) -> TableSynthesizer:
    return TableSynthesizer(
        **{"max_steps": 20, "minutes": 1, "batch_size": 128, "patience": None, "progress": False} | params
    )


@pytest.fixture(scope="module", autouse=True)
def small_blocks():
    """Blocks of 64 rows in place of 4096: the same code on few rows."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(process, "BLOCK", 64)
        yield


@pytest.fixture(scope="module")
def fitted(small_blocks) -> TableSynthesizer:
    return quick().fit(people(), target="town")


# --- rows -----------------------------------------------------------------------------------------------------------


def test_same_columns_order_dtypes_categories_and_range(fitted):
    real, fake = people(), fitted.sample(300)
    assert list(fake.columns) == list(real.columns)
    assert fake.dtypes.equals(real.dtypes)
    assert fake["height"].between(real["height"].min(), real["height"].max()).all()
    assert set(fake["town"]) <= set(real["town"])
    assert (fake["planet"] == "Earth").all()
    assert fake["since"].dt.normalize().equals(fake["since"])
    assert fitted.schema.target == "town"
    assert fitted.parameters <= 64_000


def test_row_i_depends_on_the_seed_alone(fitted):
    short, long = fitted.sample(5), fitted.sample(150)  # part of a block, and more than two
    pd.testing.assert_frame_equal(short, long.head(5))
    given = {"town": "Ulm", "height": 170.0}
    pd.testing.assert_frame_equal(fitted.sample(5, given, rng=3), fitted.sample(150, given, rng=3).head(5))
    assert not fitted.sample(5, rng=1).equals(fitted.sample(5, rng=2))


def test_training_repeats_and_leaves_the_global_generator(fitted):
    before = torch.random.get_rng_state()
    again = quick().fit(people(), target="town")
    assert torch.equal(before, torch.random.get_rng_state())
    pd.testing.assert_frame_equal(again.sample(20), fitted.sample(20))
    assert not quick(seed=1).fit(people()).sample(20).equals(fitted.sample(20))


def test_frames_of_other_kinds_come_back():
    polars = pytest.importorskip("polars")
    frame = polars.DataFrame({"a": [1, 2, 3] * 20, "b": ["x", "y", "z"] * 20})
    fake = quick().fit(frame).sample(7)
    assert isinstance(fake, polars.DataFrame)
    assert fake.schema == frame.schema


@pytest.mark.parametrize("columns", [["height", "score"], ["town", "kids"], ["planet"], ["town"]])
def test_tables_of_one_kind_of_column(columns):
    frame = people()[columns]
    synthesizer = quick(max_steps=3).fit(frame)
    assert synthesizer.sample(4).dtypes.equals(frame.dtypes)
    assert len(synthesizer.bound(frame)) == N
    assert (
        synthesizer.impute(frame.mask(frame.notna() & (frame.index.to_numpy()[:, None] % 3 == 0))).shape == frame.shape
    )


def test_two_rows_of_one_class_column_are_trained_to_the_end():
    """In some steps no class is masked: there is nothing to learn, and nothing to stumble over."""
    frame = pd.DataFrame({"a": ["x", "y"]})
    for objective in ("simple", "paper-tabular"):
        synthesizer = quick(max_steps=60, objective=objective).fit(frame)
        assert synthesizer.steps == 60
        assert set(synthesizer.sample(40)["a"]) == {"x", "y"}


def test_one_row_works():
    frame = people(1)
    synthesizer = quick(max_steps=2).fit(frame)
    assert synthesizer.sample(3).drop_duplicates().reset_index(drop=True).equals(synthesizer.sample(1))
    pd.testing.assert_frame_equal(synthesizer.sample(1)[["town", "kids"]], frame[["town", "kids"]])


def test_learns_a_dependence():
    rng = np.random.default_rng(0)
    a = rng.integers(0, 3, 3000)
    frame = pd.DataFrame({"a": a, "b": np.array(["x", "y", "z"])[a], "c": 3.0 * a + rng.normal(size=3000)})
    fake = quick(max_steps=400, batch_size=512).fit(frame).sample(2000, steps=20)
    agree = (fake["b"].map({"x": 0, "y": 1, "z": 2}) == fake["a"]).mean()
    # 0.33 if independent, 1 if learned; a few hundred steps leave some per cent
    assert agree > 0.93
    # the correlation is sqrt(6/7) = 0.926; 2000 rows err by 0.01 at three standard errors, the rest is training
    assert abs(np.corrcoef(fake["a"], fake["c"])[0, 1] - 0.926) < 0.04


# --- conditions -----------------------------------------------------------------------------------------------------


def test_a_class_given_a_noised_number_follows_its_law(monkeypatch):
    """k = "x" where a + z > 0, a and z standard normal. Given 2 at a level, a_t ~ N(2 alpha, sigma^2) and a | a_t ~
    N(alpha a_t, sigma^2), so P(x) = Phi(m / sqrt(1 + v)) with m = 2 alpha^2, v = sigma^2 (1 + alpha^2)."""
    monkeypatch.setattr(process, "BLOCK", 4096)
    rng = np.random.default_rng(0)
    a, z = rng.normal(size=(2, 8000))
    frame = pd.DataFrame({"a": a, "k": np.where(a + z > 0, "x", "y")})
    model = TableSynthesizer(max_steps=300, batch_size=1024, patience=None, progress=False).fit(frame)
    level, rows = 0.5, 8000
    kept = math.cos(math.pi / 2 * level) ** 2
    mean, variance = 2 * kept, (1 - kept) * (1 + kept)
    wanted = 0.5 * (1 + math.erf(mean / math.sqrt(2 * (1 + variance))))
    drawn = model.sample(rows, {"a": Given(2.0, level)}, rng=1)
    # four standard errors of the drawn share and of as many training rows, and as much again for what is not learned
    tolerance = 8 * math.sqrt(2 * wanted * (1 - wanted) / rows)
    assert abs((drawn["k"] == "x").mean() - wanted) < tolerance
    assert abs((model.sample(rows, rng=2)["k"] == "x").mean() - wanted) > 2 * tolerance  # of nothing given: 1/2


def test_given_is_exact(fitted):
    given = {"town": "Ulm", "debt": 0, "height": 171.25, "since": "2021-03-01", "rank": "hi", "score": None}
    fake = fitted.sample(50, given)
    assert (fake["town"] == "Ulm").all()
    assert (fake["debt"] == 0).all()
    assert (fake["height"] == 171.25).all()
    assert (fake["since"] == pd.Timestamp("2021-03-01")).all()
    assert (fake["rank"] == "hi").all()
    assert fake["score"].isna().all()
    assert fake.dtypes.equals(people().dtypes)
    assert fake["kids"].nunique() > 1


def test_guidance_at_weight_one_changes_nothing(fitted):
    given = {"town": "Ulm"}
    plain = fitted.sample(50, given)
    pd.testing.assert_frame_equal(plain, fitted.sample(50, given, NoisyGuidance(1.0, sigma=0.5)))
    assert not plain.equals(fitted.sample(50, given, NoisyGuidance(4.0, sigma=0.5)))


def test_guidance_pulls_towards_what_is_given():
    """x of class "a" is around -1, of "b" around 1, sd 1. Guided at weight 3 by the class its law is in proportion to
    p(x | a)^3 / p(x)^2, whose mean lies beyond -1: p(x) is the mixture, which has more of "b" the larger x is."""
    rng = np.random.default_rng(0)
    k = rng.integers(0, 2, 4000)
    frame = pd.DataFrame({"k": np.array(["a", "b"])[k], "x": 2.0 * k - 1 + rng.normal(size=4000)})
    model = TableSynthesizer(max_steps=400, batch_size=1024, patience=None, progress=False).fit(frame)
    mean = {
        (name, weight): model.sample(2000, {"k": name}, NoisyGuidance(weight, sigma=1.0), rng=1)["x"].mean()
        for name in "ab"
        for weight in (1.0, 3.0)
    }
    for name, side in (("a", -1), ("b", 1)):
        # 2,000 draws of sd 1 and 4,000 of training: a mean errs by .03; four of these, and .15 for what is not learnt
        assert abs(mean[name, 1.0] - side) < 0.3
        assert side * (mean[name, 3.0] - mean[name, 1.0]) > 0.15


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"shoe": 1}, "given: there is no column 'shoe'"),
        ({"town": "Rome"}, "given: column 'town': 'Rome' did not occur in training"),
        ({"height": 900.0}, "given: column 'height': 900.0 lies outside the training range"),
        ({"kids": "two"}, "given: column 'kids': expected whole numbers"),
        ({"town": None}, "given: column 'town': the cell is missing, and none was in training"),
        ({"rank": "mid"}, "given: column 'rank': 'mid' is none of its categories"),
        ({"rank": "never"}, "given: column 'rank': 'never' did not occur in training"),
        ({"since": "yesterdayish"}, "given: column 'since': expected a date, got 'yesterdayish'"),
        ({"planet": "Mars"}, "given: column 'planet': every cell was Earth in training, got another"),
    ],
)
def test_conditions_of_probability_zero(fitted, given, sentence):
    with pytest.raises(DiffuseError, match=sentence):
        fitted.sample(1, given)


def test_bad_calls(fitted):
    with pytest.raises(DiffuseError, match="rows: expected a whole number of at least 1, got 0"):
        fitted.sample(0)
    with pytest.raises(DiffuseError, match="steps: expected a whole number of at least 1"):
        fitted.sample(1, steps=0)
    with pytest.raises(DiffuseError, match="guidance: nothing to guide by"):
        fitted.sample(1, guidance=NoisyGuidance(2.0))
    with pytest.raises(DiffuseError, match="draws: expected a whole number of at least 1"):
        fitted.impute(people(), draws=0)
    with pytest.raises(DiffuseError, match="not fitted"):
        TableSynthesizer().sample(1)
    with pytest.raises(DiffuseError, match="column 'kids' is missing from the table"):
        fitted.bound(people().drop(columns="kids"))
    with pytest.raises(DiffuseError, match="at least one row"):
        quick().fit(people(0))
    with pytest.raises(DiffuseError, match="column 'shoe' is not in the schema"):
        quick().fit(people(), target="shoe", schema=Schema.infer(people()))


# --- holes ----------------------------------------------------------------------------------------------------------


def test_impute_leaves_observed_cells_and_fills_all_others(fitted):
    real = people(200, seed=1).assign(height=lambda f: f["height"].clip(150, 190))
    real.index = pd.RangeIndex(7, 207)
    holes = np.random.default_rng(0).random(real.shape) < 0.3
    frame = real.mask(holes)
    known = frame.notna()
    full = fitted.impute(frame)
    assert not full.isna().to_numpy().any()
    assert full.index.equals(frame.index)
    assert full.dtypes.equals(real.dtypes)
    for name in real.columns:
        kept = known[name]
        assert (full.loc[kept, name].to_numpy() == real.loc[kept, name].to_numpy()).all()  # bit for bit


def test_impute_draws_differ_and_repeat(fitted):
    frame = people(50, seed=1).assign(town=None)
    first, second = fitted.impute(frame, draws=2)
    assert not first["town"].equals(second["town"])
    assert first["town"].equals(fitted.impute(frame)["town"])
    pd.testing.assert_frame_equal(fitted.impute(frame.head(10)), first.head(10))
    few = frame.head(5)  # several fillings in one block of the sampler
    pd.testing.assert_frame_equal(fitted.impute(few, draws=4)[2], fitted.impute(few, draws=3)[2])


def test_impute_without_holes_is_the_table(fitted):
    frame = people(30, seed=1).dropna()
    pd.testing.assert_frame_equal(fitted.impute(frame), frame)


def test_impute_uses_what_is_known():
    a = np.random.default_rng(0).integers(0, 3, 2000)
    frame = pd.DataFrame({"a": a, "b": np.array(["x", "y", "z"])[a]})
    synthesizer = quick(max_steps=300, batch_size=512).fit(frame)
    full = synthesizer.impute(frame.assign(a=np.nan))
    assert (full["a"] == a).mean() > 0.97  # b tells a; a third agree by chance
    assert full["a"].dtype == frame["a"].dtype


# --- the process ----------------------------------------------------------------------------------------------------


def test_absent_numbers_are_fresh_noise_and_the_bound_takes_them_off():
    frame = people()
    codec = TableCodec.fit(frame)
    coded = codec.encode(frame, rng=0)
    source = TableSource(coded)
    index = torch.arange(N)
    one, two = (source.batch(index, torch.Generator().manual_seed(k))["numbers"] for k in (0, 1))
    assert torch.equal(one[coded.present], two[coded.present])
    assert torch.equal(one[coded.present], coded.numbers.float()[coded.present])
    assert (one != two)[~coded.present].all()
    rows = rows_of(coded, torch.Generator().manual_seed(0))
    expected = -torch.distributions.Normal(0, 1).log_prob(rows["numbers"].double())
    expected = torch.where(coded.present, 0.0, expected).sum(1)
    torch.testing.assert_close(absent_nats(rows, coded), expected, atol=1e-12, rtol=1e-12)  # the same in float64


def test_bound_of_independent_columns_is_their_entropy():
    """Behind a marginal start nothing is learned yet, and the bound of a class column is its cross entropy exactly."""
    frame = pd.DataFrame({"a": ["x"] * 300 + ["y"] * 100})
    synthesizer = quick(max_steps=1, lr=1e-9).fit(frame)
    nats = synthesizer.bound(frame, draws=64)
    shares = {"x": 300.5 / 401, "y": 100.5 / 401}  # half a row is added to each class
    for value, share in shares.items():
        got = nats[(frame["a"] == value).to_numpy()].mean()
        # -log q int_0^1 1[masked] dt/t by 256 strata: each row errs by about 0.15, the mean of 100 by 0.015
        assert abs(got + math.log(share)) < 0.06


# --- housekeeping ---------------------------------------------------------------------------------------------------


def test_save_and_load_draw_the_same(fitted, tmp_path):
    fitted.save(tmp_path / "model")
    loaded = TableSynthesizer.load(tmp_path / "model")
    pd.testing.assert_frame_equal(loaded.sample(20), fitted.sample(20))
    np.testing.assert_array_equal(loaded.bound(people()), fitted.bound(people()))
    assert loaded.get_params() == fitted.get_params()
    assert loaded.curve == fitted.curve
    assert (tmp_path / "model" / "schema.toml").read_text().startswith("target")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert config["parameters"] == fitted.parameters
    assert [c["name"] for c in config["schema"]["columns"]] == list(people().columns)


def test_constant_tables_are_saved_too(tmp_path):
    frame = people()[["planet"]]
    quick().fit(frame).save(tmp_path / "model")
    pd.testing.assert_frame_equal(TableSynthesizer.load(tmp_path / "model").sample(2), frame.head(2))


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"batch_size": 0}, "batch_size: expected a whole number of at least 1, got 0"),
        ({"lr": 0}, "lr: expected a number above 0, at most 1, got 0"),
        ({"lr": 1e30}, "lr: expected a number above 0"),
        ({"seed": None}, "seed: expected a whole number, got None"),
        ({"minutes": "1"}, "minutes: expected a number, got '1'"),
    ],
)
def test_settings_out_of_range_are_refused(setting, said):
    with pytest.raises(DiffuseError, match=said):
        TableSynthesizer(**{"max_steps": 1, "progress": False} | setting).fit(pd.DataFrame({"x": np.arange(50.0)}))


def test_the_authors_network_may_have_our_objective():
    model = TableSynthesizer("paper", max_steps=1, backbone="table-dit", progress=False)
    assert len(model.fit(pd.DataFrame({"x": np.arange(50.0)})).sample(3)) == 3


def test_a_seed_of_numpy_is_a_seed(tmp_path):
    table = pd.DataFrame({"x": np.arange(50.0)})
    model = TableSynthesizer(max_steps=1, seed=np.int64(3), progress=False).fit(table)
    model.save(tmp_path / "model")
    pd.testing.assert_frame_equal(model.sample(5), TableSynthesizer.load(tmp_path / "model").sample(5))


def test_load_refuses_other_things(fitted, tmp_path):
    with pytest.raises(DiffuseError, match="nothing at this path"):
        TableSynthesizer.load(tmp_path / "none")
    save_artifact(tmp_path / "demo", {"kind": "demo"}, {})
    with pytest.raises(DiffuseError, match="expected a fitted table, got an artifact of kind 'demo'"):
        TableSynthesizer.load(tmp_path / "demo")
    fitted.save(tmp_path / "model")
    file = tmp_path / "model" / "config.json"
    config = json.loads(file.read_text())
    without = {key: value for key, value in config.items() if key != "joint"}
    for broken in (without, config | {"schema": 3}, config | {"joint": {"modalities": [1]}}):
        file.write_text(json.dumps(broken))
        with pytest.raises(DiffuseError, match="damaged or of another version"):
            TableSynthesizer.load(tmp_path / "model").sample(1)


def test_parameters_in_the_way_of_scikit_learn():
    base = pytest.importorskip("sklearn.base")
    synthesizer = TableSynthesizer(preset="small", minutes=3)
    copy = base.clone(synthesizer)
    assert copy is not synthesizer
    assert copy.get_params() == synthesizer.get_params()
    assert synthesizer.set_params(seed=4).seed == 4
    assert "preset='small'" in repr(synthesizer)
    with pytest.raises(DiffuseError, match="there is no parameter 'epochs'"):
        synthesizer.set_params(epochs=3)


def test_interrupted_training_keeps_what_there_is(interrupted):
    synthesizer = quick().fit(people())
    assert synthesizer.interrupted
    assert synthesizer.steps == 3
    assert len(synthesizer.sample(5)) == 5


def test_interrupted_while_marginals_are_corrected_keeps_what_there_is(monkeypatch):
    from de_plugins.tabular import _fitting

    def stop(*args, **more):
        raise KeyboardInterrupt

    monkeypatch.setattr(_fitting, "draw_states", stop)
    synthesizer = quick(max_steps=2).fit(people(1000))
    assert synthesizer.interrupted
    assert synthesizer.steps == 2
    assert all(getattr(v, "calibration", None) is None for v in synthesizer.codec.variables)
    assert len(synthesizer.sample(5)) == 5


def test_patience_keeps_a_small_table_from_being_learnt_by_heart():
    """120 rows and a wide network: the bound on other rows is better with patience than at the end without."""
    draw = np.random.default_rng(0)

    def rows(n):
        x = draw.normal(size=n)
        return pd.DataFrame({"x": x, "y": x + draw.normal(size=n), "c": draw.choice(list("abcdef"), n)})

    train, test = rows(120), rows(1000)
    bounds = {}
    for patience in (3, None):
        synth = TableSynthesizer("small", minutes=5, max_steps=700, patience=patience, progress=False).fit(train)
        bounds[patience] = synth.bound(test, draws=8, rng=0)
        assert (synth.steps < 700) == (patience is not None)
    gain = bounds[None] - bounds[3]
    assert gain.mean() > 4 * gain.std() / len(gain) ** 0.5


@pytest.mark.parametrize(
    ("rows", "objective", "decay", "watched"),
    [
        (90, "simple", 1 / (0.004 * 800), False),  # 800 steps at the least; too few rows to set some apart
        (120, "simple", 1 / (0.004 * 800), True),
        (5000, "simple", 1 / (0.004 * 300 * 4500 / 64), True),  # 300 passes of rows / batch steps; 500 rows apart
        (120, "paper-tabular", 0.03, True),
        (25_000, "simple", 1 / (0.004 * 300 * 25_000 / 64), False),  # more cells than parameters
    ],
)
def test_what_a_table_is_held_by_hangs_on_its_rows(monkeypatch, rows, objective, decay, watched):
    """Numbers "height" and "score", and the classes of the latter's gate: three variables, and 64,000 parameters. The
    gate names no row, so that weights look back on the most passes."""
    from de_plugins.tabular import _fitting

    class Enough(Exception):
        pass

    seen = {}

    def look(*args, **settings):
        seen.update(settings)
        raise Enough

    monkeypatch.setattr(_fitting, "Trainer", look)
    frame = people(rows)[["height", "score"]]
    with pytest.raises(Enough):
        quick(batch_size=64, objective=objective, patience=3).fit(frame)
    assert math.isclose(seen["weight_decay"], decay, rel_tol=1e-2)
    assert (seen["patience"], seen["held_out"] is not None) == ((3, True) if watched else (None, False))
