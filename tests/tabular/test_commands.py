"""The commands for tables: what they write, and what they say when the call or the data is wrong."""

import gzip
import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from de_core import DiffuseError
from de_core.artifact import load_artifact, save_artifact
from de_core.cli import main
from de_plugins.tabular import TableCodec, _datasets, process, read_table
from de_plugins.tabular.commands.sample import parse_given, parse_guidance
from de_plugins.tabular.schema import Schema

DATA = os.environ.get("DIFFUSE_DATA")


def people(n: int = 300) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "height": rng.normal(170, 10, n).round(1),
            "kids": rng.integers(0, 4, n),
            "town": rng.choice(["Ulm", "Bonn"], n),
            "owner": rng.random(n) < 0.3,
            "since": (pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.integers(0, 9, n), unit="D")).strftime(
                "%Y-%m-%d"
            ),
            "note": pd.Series(rng.choice(["a", "b"], n)).where(rng.random(n) < 0.8),
        }
    )


@pytest.fixture(scope="module", autouse=True)
def small_blocks():
    """Blocks of 64 rows in place of 4096: the same code on few rows."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(process, "BLOCK", 64)
        yield


@pytest.fixture(scope="module")
def here(tmp_path_factory, small_blocks) -> Path:
    """A folder with a table and what was learned of it."""
    folder = tmp_path_factory.mktemp("tables")
    people().to_csv(folder / "people.csv", index=False)
    code = main(
        ["fit", str(folder / "people.csv"), "--out", str(folder / "model"), "--minutes", "0.02", "--target", "town"]
    )
    assert code == 0
    return folder


def run(capsys, *arguments) -> tuple[int, str, str]:
    code = main([str(a) for a in arguments])
    said = capsys.readouterr()
    return code, said.out, said.err


# --- what they do ---------------------------------------------------------------------------------------------------


def test_fit_writes_an_artifact_that_inspect_shows(here, capsys):
    artifact = load_artifact(here / "model")
    assert artifact.config["kind"] == "tabular"
    assert artifact.config["schema"]["target"] == "town"
    code, out, _ = run(capsys, "inspect", here / "model", "--json")
    facts = json.loads(out)
    assert code == 0
    assert 0 < facts["parameters"] <= 64_000
    assert set(facts["modalities"]) == {"numbers", "classes"}
    assert [c["name"] for c in facts["schema"]["columns"]] == list(people().columns)
    assert facts["curve"]


@pytest.mark.parametrize("ending", ["csv", "csv.gz", "parquet"])
def test_sample_writes_the_table(here, capsys, tmp_path, ending):
    out = tmp_path / f"new.{ending}"
    given = ["--given", "town=Ulm", "owner=true", "--given", "kids=2", "--given", "since=2020-01-03"]
    code, _, err = run(
        capsys, "sample", here / "model", "--rows", 20, "--out", out, *given, "--guidance", "2,0.5", "--steps", 8
    )
    assert (code, err) == (0, "")
    frame = read_table(out)
    assert frame.dtypes.equals(read_table(here / "people.csv").dtypes)
    assert len(frame) == 20
    assert (frame["town"] == "Ulm").all()
    assert frame["owner"].all()
    assert (frame["kids"] == 2).all()
    assert (frame["since"] == pd.Timestamp("2020-01-03")).all()


def test_sample_repeats_by_seed(here, capsys, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        run(
            capsys,
            *("sample", here / "model", "--rows", 9, "--out", tmp_path / f"{name}.csv"),
            *("--seed", seed, "--steps", 4),
        )
    a, b, c = ((tmp_path / f"{name}.csv").read_text() for name in "abc")
    assert a == b != c


def test_impute_keeps_what_is_there(here, capsys, tmp_path):
    frame = people(40)
    frame.loc[::2, "town"] = None
    frame.loc[::3, "kids"] = None
    frame.to_csv(tmp_path / "holes.csv", index=False)
    code, _, err = run(capsys, "impute", here / "model", tmp_path / "holes.csv", "--out", tmp_path / "full.csv")
    assert (code, err) == (0, "")
    full = read_table(tmp_path / "full.csv")
    assert not full.isna().to_numpy().any()
    assert (full["town"][1::2] == people(40)["town"][1::2]).all()
    assert full["height"].equals(people(40)["height"])
    code, _, _ = run(
        capsys, "impute", here / "model", tmp_path / "holes.csv", "--out", tmp_path / "many.csv", "--draws", 3
    )
    many = read_table(tmp_path / "many.csv")
    assert code == 0
    assert many["draw"].value_counts().to_dict() == {0: 40, 1: 40, 2: 40}


def test_an_edited_schema_is_used(here, capsys, tmp_path):
    schema = Schema.infer(read_table(here / "people.csv"))
    (tmp_path / "schema.toml").write_text(schema.to_toml().replace("max_classes = 1000", "max_classes = 999"))
    code, _, err = run(
        capsys,
        *("fit", here / "people.csv", "--out", tmp_path / "model", "--schema", tmp_path / "schema.toml"),
        *("--minutes", "0.005", "--target", "kids"),
    )
    assert (code, err) == (0, "")
    written = load_artifact(tmp_path / "model").config["schema"]
    assert written["target"] == "kids"
    assert {c.get("max_classes") for c in written["columns"]} <= {999, None}


def test_a_table_of_one_row_fits(capsys, tmp_path):
    people(1).to_csv(tmp_path / "one.csv", index=False)
    assert run(capsys, "fit", tmp_path / "one.csv", "--out", tmp_path / "model", "--minutes", "0.01")[0] == 0
    assert run(capsys, "sample", tmp_path / "model", "--rows", 2, "--out", tmp_path / "two.csv")[0] == 0
    assert len(read_table(tmp_path / "two.csv")) == 2


def test_evaluate_writes_a_page_and_numbers(here, capsys, tmp_path):
    pytest.importorskip("xgboost")
    table = tmp_path / "few.csv"
    people(40)[["height", "town"]].to_csv(table, index=False)
    arguments = ("evaluate", "--train", table, "--synthetic", table, "--out", tmp_path / "r")
    code, out, _ = run(capsys, *arguments, "--json")
    assert code == 0
    assert json.loads(out)["scores"]["shape"] == 1
    assert json.loads((tmp_path / "r" / "metrics.json").read_text()) == json.loads(out)
    assert (tmp_path / "r" / "report.html").read_text(encoding="utf-8").startswith("<!")


def test_evaluate_with_held_out_rows_and_the_model(here, capsys, tmp_path):
    """The target is the model's; learning, privacy, imputation, the bound and the cost are then in the report."""
    pytest.importorskip("xgboost")
    assert run(capsys, "sample", here / "model", "--rows", 60, "--out", tmp_path / "new.csv")[0] == 0
    read_table(here / "people.csv").head(80).to_csv(tmp_path / "test.csv", index=False)
    arguments = ("--train", here / "people.csv", "--synthetic", tmp_path / "new.csv", "--test", tmp_path / "test.csv")
    code, out, _ = run(capsys, "evaluate", *arguments, "--model", here / "model", "--out", tmp_path / "r", "--json")
    assert code == 0
    found = json.loads(out)
    assert found["target"] == "town"
    assert {"learning", "privacy", "imputation", "bound", "cost"} <= set(found)


def test_an_interrupted_fit_is_saved(here, capsys, tmp_path, interrupted):
    code, out, _ = run(capsys, "fit", here / "people.csv", "--out", tmp_path / "model", "--minutes", "1")
    assert code == 130
    assert "holds what was learned so far" in out
    assert run(capsys, "sample", tmp_path / "model", "--rows", 2, "--out", tmp_path / "two.csv")[0] == 0


@pytest.mark.parametrize("draws", [1, 2])
def test_impute_keeps_an_index_that_has_a_name(here, capsys, tmp_path, draws):
    frame = read_table(here / "people.csv").head(20).set_index(pd.Index(range(100, 120), name="id"))
    frame.loc[::2, "town"] = None
    frame.to_parquet(tmp_path / "holes.parquet")
    for ending in ("parquet", "csv"):
        out = tmp_path / f"full.{ending}"
        arguments = ("impute", here / "model", tmp_path / "holes.parquet", "--out", out, "--draws", draws)
        assert run(capsys, *arguments)[::2] == (0, "")
        full = read_table(out)
        full = full if ending == "parquet" else full.set_index(full.columns[0])
        assert full.index.name == "id"
        assert full.index.tolist() == [*range(100, 120)] * draws
        assert full["height"].tolist() == frame["height"].tolist() * draws


# --- what they say --------------------------------------------------------------------------------------------------


def refused(capsys, sentence: str, *arguments) -> None:
    code, _, err = run(capsys, *arguments)
    assert code == 2
    assert sentence in err
    assert err.count("\n") == 1
    assert "Traceback" not in err


def test_a_place_below_a_file_is_refused_before_the_work(here, capsys, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    place, table = tmp_path / "file" / "x" / "y", here / "model"
    said = f"--out {place}: expected a folder to write into, got {tmp_path / 'file'}"
    monkeypatch.setattr("de_plugins.tabular.commands.evaluate.read_table", None)
    refused(capsys, said, "evaluate", "--train", table, "--synthetic", table, "--out", place)
    monkeypatch.setattr("de_plugins.tabular.commands.fit.read_table", None)
    refused(capsys, said, "fit", table, "--out", place)


def test_fit_refuses_what_is_no_table(here, capsys, tmp_path):
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "header.csv").write_text("a,b\n")
    (tmp_path / "noise.parquet").write_bytes(b"\0\1\2")
    (tmp_path / "gone.csv.gz").write_bytes(gzip.compress(b"a,b\n1,2\n")[:-9])
    out = tmp_path / "model"
    refused(capsys, "the file is empty", "fit", tmp_path / "empty.csv", "--out", out)
    refused(capsys, "no rows", "fit", tmp_path / "header.csv", "--out", out)
    refused(capsys, "not a readable parquet table", "fit", tmp_path / "noise.parquet", "--out", out)
    refused(capsys, "not a readable csv table", "fit", tmp_path / "gone.csv.gz", "--out", out)
    refused(capsys, "no such file", "fit", tmp_path / "none.csv", "--out", out)
    refused(capsys, "expected a name that ends in", "fit", tmp_path / "x.xls", "--out", out)
    refused(
        capsys,
        "target: column 'shoe' is not in the table",
        "fit",
        here / "people.csv",
        "--out",
        out,
        "--target",
        "shoe",
    )
    refused(capsys, "--minutes: expected a number above 0", "fit", here / "people.csv", "--out", out, "--minutes", "0")
    refused(capsys, "no such file", "fit", here / "people.csv", "--out", out, "--schema", tmp_path / "no.toml")
    refused(capsys, "invalid choice: 'huge'", "fit", here / "people.csv", "--out", out, "--preset", "huge")
    assert not out.exists()


def test_fit_leaves_directories_of_others_alone(here, capsys, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    save_artifact(tmp_path / "demo", {"kind": "demo"}, {})
    (tmp_path / "file").write_text("x")
    for name, what in (("mine", "it holds other things"), ("demo", "it holds demo"), ("file", "got a file")):
        refused(capsys, what, "fit", here / "people.csv", "--out", tmp_path / name)
    assert (tmp_path / "mine" / "letter.txt").read_text() == "dear"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["demo", "file", "mine"]


def test_fit_says_when_preset_nano_is_narrow(here, capsys, tmp_path):
    wide = pd.DataFrame({f"c{k}": np.arange(400) % 10 for k in range(200)})
    wide.to_csv(tmp_path / "wide.csv", index=False)
    hint = "--preset small learns such a table better"
    call = ("fit", "--minutes", "0.002", "--out", tmp_path / "model")
    assert hint in run(capsys, *call, tmp_path / "wide.csv")[1]
    assert hint not in run(capsys, *call, tmp_path / "wide.csv", "--preset", "small")[1]
    assert hint not in run(capsys, *call, here / "people.csv")[1]


def test_fit_replaces_an_older_model_only_when_it_is_done(here, capsys, tmp_path):
    place = tmp_path / "model"
    assert run(capsys, "fit", here / "people.csv", "--out", place, "--minutes", "0.005")[0] == 0
    before = (place / "config.json").read_bytes()
    (tmp_path / "bad.csv").write_text("a\ninf\n1.5\n")
    refused(capsys, "column 'a': expected finite numbers", "fit", tmp_path / "bad.csv", "--out", place)
    assert (place / "config.json").read_bytes() == before


def test_sample_refuses(here, capsys, tmp_path):
    call = ("sample", here / "model", "--rows", 3, "--out", tmp_path / "new.csv")
    refused(capsys, "there is no column 'shoe'", *call, "--given", "shoe=1")
    refused(capsys, "expected COL=VALUE", *call, "--given", "town")
    refused(capsys, "column 'town': 'Rome' did not occur in training", *call, "--given", "town=Rome")
    refused(capsys, "expected a whole number", *call, "--given", "kids=two")
    refused(capsys, "expected true or false", *call, "--given", "owner=maybe")
    refused(capsys, "column 'town' is given twice", *call, "--given", "town=Ulm", "--given", "town=Bonn")
    refused(capsys, "expected W or W,SIGMA", *call, "--given", "town=Ulm", "--guidance", "strong")
    refused(capsys, "nothing to guide by", *call, "--guidance", "2")
    refused(capsys, "steps: expected", *call, "--steps", "0")
    refused(capsys, "rows: expected", "sample", here / "model", "--rows", 0, "--out", tmp_path / "new.csv")
    refused(capsys, "ends in", "sample", here / "model", "--rows", 3, "--out", tmp_path / "new.doc")
    refused(capsys, "does not exist", "sample", here / "model", "--rows", 3, "--out", tmp_path / "no" / "new.csv")
    refused(capsys, "nothing at this path", "sample", tmp_path / "none", "--rows", 3, "--out", tmp_path / "new.csv")
    refused(capsys, "config.json, it is missing", "sample", tmp_path, "--rows", 3, "--out", tmp_path / "new.csv")
    assert not any(tmp_path.iterdir())


def test_impute_refuses(here, capsys, tmp_path):
    people(5).drop(columns="kids").to_csv(tmp_path / "less.csv", index=False)
    people(5).assign(draw=1).to_csv(tmp_path / "draw.csv", index=False)
    people(5).assign(town="Rome").to_csv(tmp_path / "rome.csv", index=False)
    out = ("--out", tmp_path / "full.csv")
    refused(capsys, "column 'kids' is missing from the table", "impute", here / "model", tmp_path / "less.csv", *out)
    refused(capsys, "a column 'draw' of its own", "impute", here / "model", tmp_path / "draw.csv", *out, "--draws", 2)
    refused(capsys, "did not occur in training", "impute", here / "model", tmp_path / "rome.csv", *out)
    refused(capsys, "draws: expected", "impute", here / "model", here / "people.csv", *out, "--draws", 0)
    assert not (tmp_path / "full.csv").exists()


def test_evaluate_refuses(here, capsys, tmp_path):
    table = here / "people.csv"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    call = ("evaluate", "--train", table, "--synthetic", table)
    refused(capsys, "expected a new or empty directory", *call, "--out", tmp_path / "mine")
    refused(capsys, "target: column 'shoe'", *call, "--out", tmp_path / "r", "--target", "shoe")
    assert not (tmp_path / "r").exists()


def test_names_that_hold_the_sign_and_types_of_values():
    frame = pd.DataFrame(
        {"a": [1, 2] * 9, "a=b": [0.5, 1.5] * 9, "c": pd.Categorical([10, 20] * 9), "d": ["x", None] * 9}
    )
    codec = TableCodec.fit(frame)
    assert parse_given(["a=b=1.5", "a=2", "c=20", "d="], codec) == {"a=b": 1.5, "a": 2, "c": 20, "d": None}
    with pytest.raises(DiffuseError, match="--given a=b=x: expected a number"):
        parse_given(["a=b=x"], codec)
    assert parse_guidance("2.5").sigma == 1
    assert parse_guidance("2.5,0.25").sigma == 0.25
    with pytest.raises(DiffuseError, match=r"expected sigma in \[0, 1\]"):
        parse_guidance("2,3")


# --- data -----------------------------------------------------------------------------------------------------------


def test_content_hash_reads_cells_and_order():
    frame = pd.DataFrame({"a": [1.0, np.nan, 0.1], "b": ["x", "y", "z"]})
    known = _datasets.content_hash(frame)
    assert known == _datasets.content_hash(frame.assign(a=frame["a"] * (1 + 1e-10)))  # beyond 8 digits
    for other in (frame.assign(a=frame["a"] * (1 + 1e-6)), frame[::-1], frame.rename(columns={"a": "c"})):
        assert known != _datasets.content_hash(other)


def test_data_refuses(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("DIFFUSE_DATA", str(tmp_path))
    refused(capsys, "unknown data set 'iris'", "data", "iris", "--out", tmp_path / "out")
    refused(capsys, "no such file", "data", "magic", "--out", tmp_path / "out")
    people().to_csv(tmp_path / "magic.csv.gz", index=False)
    refused(capsys, "expected 19020 rows and 11 columns", "data", "magic", "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_publishers_files_become_the_table():
    """As UCI writes them: padding, a comment line, full stops behind labels, no header, blanks before names."""
    values = (
        "39, State-gov, 77516, Bachelors, 13, Never-married, Adm-clerical, Not-in-family, White, Male, 2174, 0, 40, ?"
    )
    adult = _datasets._adult(f"|1x3 Cross validator\n{values}, <=50K.\n".encode())
    assert adult.iloc[0].tolist() == [*values.split(", "), "<=50K"]
    magic = _datasets._magic(b"28.7967,16.0021,2.6449,0.3918,0.1982,27.7004,22.011,-8.2027,40.092,81.8828,g\n")
    assert magic.loc[0, "fDist"] == "81.8828"
    news = _datasets._news(b"url, timedelta, shares\nhttp://x/, 731.0, 593\n")
    assert news.columns.tolist() == ["timedelta", "shares"]


@pytest.mark.skipif(not DATA, reason="DIFFUSE_DATA does not name the folder of the tables")
def test_known_tables_are_recognised_and_written(capsys, tmp_path):
    code, out, _ = run(capsys, "data", "magic", "--out", tmp_path)
    assert code == 0
    assert out.strip() == str(tmp_path / "magic.csv.gz")
    written = read_table(tmp_path / "magic.csv.gz")
    pd.testing.assert_frame_equal(written, read_table(Path(str(DATA)) / "magic.csv.gz"))
    assert run(capsys, "data", "magic", "--out", tmp_path)[0] == 0  # already there
    written.assign(fDist=0).to_csv(tmp_path / "magic.csv.gz", index=False)
    refused(capsys, "is in the way", "data", "magic", "--out", tmp_path)


# --- a second file --------------------------------------------------------------------------------------------------


def visits(n: int = 200) -> pd.DataFrame:
    """Columns that a CSV file of some of the rows would be read otherwise."""
    rng = np.random.default_rng(1)
    frame = people(n)[["height"]].assign(
        zip=rng.choice(["01067", "10115", "10117"], n),
        mixed=rng.choice(["1", "2", "x"], n),
        owner=pd.array(rng.random(n) < 0.3, dtype="boolean"),
        day=pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.integers(0, 9, n), unit="D"),
        seen=pd.Timestamp("2020-10-24 05:00", tz="UTC") + pd.to_timedelta(rng.integers(0, 90, n), unit="h"),
    )
    frame.loc[::7, ["owner", "day"]] = None
    return frame


def test_what_sample_writes_fits_its_own_model(capsys, tmp_path):
    pytest.importorskip("xgboost")
    train, model = tmp_path / "train.parquet", tmp_path / "model"
    visits().to_parquet(train)
    assert run(capsys, "fit", train, "--out", model, "--minutes", "0.01")[0] == 0
    assert run(capsys, "sample", model, "--rows", 40, "--steps", 4, "--out", tmp_path / "new.csv")[0] == 0
    holes = pd.read_csv(tmp_path / "new.csv", dtype=str)
    holes = holes.assign(zip="10115", mixed="1", owner=None, day=None)
    holes.loc[::2, "height"] = None
    holes.to_csv(tmp_path / "holes.csv", index=False)
    arguments = ("impute", model, tmp_path / "holes.csv", "--out", tmp_path / "full.parquet", "--seed", 1)
    assert run(capsys, *arguments)[::2] == (0, "")
    full = read_table(tmp_path / "full.parquet")
    assert not full.isna().to_numpy().any()
    assert full.dtypes.drop("height").equals(visits().dtypes.drop("height"))
    assert (full["zip"] == "10115").all()
    assert (full["seen"] == pd.to_datetime(holes["seen"])).all()
    for synthetic in ("new", "holes"):
        table = tmp_path / f"{synthetic}.csv"
        arguments = ("evaluate", "--train", train, "--synthetic", table, "--out", tmp_path / synthetic)
        assert run(capsys, *arguments)[0] == 0  # columns without a value warn in the metrics
