"""Files in, files out, and one sentence for what is no table."""

import gzip

import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings

from de_core.errors import DiffuseError
from de_plugins.tabular._plain import describe
from de_plugins.tabular.codec import TableCodec
from de_plugins.tabular.io import read_like, read_table, write_table


@pytest.fixture
def mixed():
    return pd.DataFrame(
        {
            "whole": [3, 1, 2],
            "holed": pd.array([1, None, 3], dtype="Int64"),
            "real": [0.1, np.nan, 3.0],
            "flag": [True, False, True],
            "text": ["?", "a,b", None],
            "day": pd.to_datetime(["2024-01-31", "2024-02-29", None]),
        }
    )


@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz", "t.parquet"])
def test_a_table_survives_the_file(tmp_path, mixed, name):
    write_table(mixed, tmp_path / name)
    back = read_table(tmp_path / name)
    pd.testing.assert_frame_equal(back, mixed)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_spellings_of_truth_are_equal_after_a_second_reading(tmp_path):
    (tmp_path / "a.csv").write_text("flag,x\nTRUE,1\nFALSE,2\n")
    first = read_table(tmp_path / "a.csv")
    write_table(first, tmp_path / "b.csv")
    pd.testing.assert_frame_equal(read_table(tmp_path / "b.csv"), first)


@pytest.mark.parametrize("text", ["x\n1\n", "x\na\n", "x,y\n1,2\n", "x\n?\n?\n"])
def test_small_tables_are_tables(tmp_path, text):
    (tmp_path / "t.csv").write_text(text)
    assert read_table(tmp_path / "t.csv").shape[0] == text.count("\n") - 1


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("t.csv", b"", "empty"),
        ("t.csv", b"\n\n", "no column names"),
        ("t.csv", b"a,b\n", "no rows"),
        ("t.csv", b"a,b,a\n1,2,3\n", "'a' occurs twice"),
        ("t.csv", b"a,b\n1,2,3\n", "row 2 has 3 cells, the first row 2"),
        ("t.csv", b"a,b\n1,2\n1,2,3\n", "row 3 has 3 cells, the first row 2"),
        ("t.csv", b"a,b\n1,2\n1\n", "row 3 has 1 cells, the first row 2"),
        ("t.csv", b'a,b\n"x,1\n', "not a readable csv table"),
        ("t.csv", b"a;b\n1;2\n", "expected commas between the columns, got ';'"),
        ("t.csv", b"a\tb\n1\t2\n", "expected commas between the columns"),
        ("t.csv", "name\nJosé\n".encode("latin-1"), "expected text in UTF-8, got byte 0xe9; save it as UTF-8"),
        ("t.csv", "a,b\n1,2\n".encode("utf-16"), "expected text in UTF-8, got a NUL byte"),
        ("t.csv", b"\x89PNG\r\n\x1a\n\x00\xff\xfe", "expected text in UTF-8, got a NUL byte"),
        ("t.csv", b"a\n-9223372036854775808\n1\n", "which 64 bits do not tell apart"),
        ("t.csv.gz", b"a,b\n1,2\n", "not a readable csv table"),
        ("t.parquet", b"a,b\n1,2\n", "not a readable parquet table"),
        ("t.xlsx", b"PK", "expected a name that ends in"),
    ],
)
def test_what_is_no_table_is_said_in_one_sentence(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DiffuseError, match=said) as caught:
        read_table(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_a_missing_file_a_folder_and_a_missing_folder(tmp_path, mixed):
    with pytest.raises(DiffuseError, match="no such file"):
        read_table(tmp_path / "none.csv")
    (tmp_path / "d.csv").mkdir()
    with pytest.raises(DiffuseError, match="folder"):
        read_table(tmp_path / "d.csv")
    with pytest.raises(DiffuseError, match="expected an existing folder to write into"):
        write_table(mixed, tmp_path / "no" / "t.csv")


def test_a_failed_write_keeps_what_was_there(tmp_path):
    path = tmp_path / "t.parquet"
    path.write_bytes(b"precious")
    with pytest.raises(Exception):  # noqa: B017, PT011  # whatever pyarrow raises for a column it cannot store
        write_table(pd.DataFrame({"x": [object()]}), path)
    assert path.read_bytes() == b"precious"
    assert [p.name for p in tmp_path.iterdir()] == ["t.parquet"]


def test_a_table_that_changed_its_ending_midway_is_refused(tmp_path):
    whole = gzip.compress(b"a,b\n" + b"1,2\n" * 1000)
    (tmp_path / "t.csv.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DiffuseError, match="not a readable csv table"):
        read_table(tmp_path / "t.csv.gz")


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbfa,b\n1,x\n2,\n",
        b"a,b\r\n1,x\r\n2,\r\n",
        b"a,b\r1,x\r2,\r",
        b"a,b\n\n1,x\n\n2,\n\n",
        b'"a","b"\n"1","x"\n"2",""\n',
    ],
)
def test_marks_line_ends_and_quotes_of_other_systems(tmp_path, content):
    (tmp_path / "t.csv").write_bytes(content)
    pd.testing.assert_frame_equal(read_table(tmp_path / "t.csv"), pd.DataFrame({"a": [1, 2], "b": ["x", None]}))


cells = st.sampled_from(
    [
        "",
        "0",
        "-1",
        "1.5",
        "1e400",
        "inf",
        "nan",
        "NA",
        "x",
        '"',
        '"a,b"',
        "2024-01-01",
        "true",
        "é",
        "9" * 25,
        " ",
        ";",
    ]
)


@settings(max_examples=300)
@given(
    st.one_of(
        st.binary(max_size=200),
        st.lists(st.lists(cells, min_size=1, max_size=4).map(",".join), max_size=8).map(
            lambda lines: "\n".join(lines).encode()
        ),
        st.integers(1, 4).flatmap(
            lambda width: st.lists(st.lists(cells, min_size=width, max_size=width).map(",".join), min_size=2).map(
                lambda lines: "\r\n".join(["a,b,c,d"[: 2 * width - 1], *lines]).encode()
            )
        ),
    )
)
def test_any_bytes_are_a_table_or_one_sentence(tmp_path, content):
    """And what is read is coded, decoded and written without another kind of error."""
    (tmp_path / "t.csv").write_bytes(content)
    said = ""
    try:
        frame = read_table(tmp_path / "t.csv")
        codec = TableCodec.fit(frame)
        coded = codec.encode(frame)
        back = codec.decode(coded.classes, coded.numbers, rng=0)
    except DiffuseError as error:
        said = str(error)
    assert "\n" not in said
    if said:
        return
    assert back.dtypes.equals(frame.dtypes)
    write_table(back, tmp_path / "back.csv")
    assert read_table(tmp_path / "back.csv").shape == frame.shape


def test_numbers_with_leading_zeros_are_codes(tmp_path):
    (tmp_path / "t.csv").write_text(
        'zip,count,share,"small"\n"007",10,0.5,0\n,20,00.5,0\n12,0,1.5,1\n', encoding="utf-8"
    )
    frame = read_table(tmp_path / "t.csv")
    assert frame["zip"].tolist() == ["007", None, "12"]
    assert [str(dtype) for dtype in frame.dtypes] == ["object", "int64", "float64", "int64"]
    write_table(frame, tmp_path / "back.csv")
    pd.testing.assert_frame_equal(read_table(tmp_path / "back.csv"), frame)


TYPED = {
    "text": (["1", "x"], ["1", ""], ["1", None]),
    "zip": (["01067", "10115"], ["10115", "10117"], ["10115", "10117"]),
    "word": (["a", "b"], ["2024-01-01", "2024-01-02"], ["2024-01-01", "2024-01-02"]),
    "rank": (pd.Categorical(["1", "2"]), ["1", "2"], ["1", "2"]),
    "whole": ([1, 2], ["007", "8"], [7, 8]),
    "fine": (
        pd.to_datetime(["2024-01-01 00:00:00.5", "2024-01-02"], format="ISO8601"),
        ["2024-01-01 00:00:00.250000", ""],
        [pd.Timestamp("2024-01-01 00:00:00.25"), pd.NaT],
    ),
    "zoned": (
        pd.to_datetime(["2020-10-25 00:30", "2020-10-25 01:30"], utc=True).tz_convert("Europe/Berlin"),
        ["2020-10-25 02:30:00+02:00", "2020-10-25 02:30:00+01:00"],
        list(pd.to_datetime(["2020-10-25 00:30", "2020-10-25 01:30"], utc=True)),
    ),
    "late": (
        pd.Series(["9999-12-31", "2024-01-01"], dtype="datetime64[s]"),
        ["9999-12-31", "2024-01-01"],
        list(pd.Series(["9999-12-31", "2024-01-01"], dtype="datetime64[s]")),
    ),
    "span": (
        pd.to_timedelta(["1h", "2h"]),
        ["0 days 01:00:00", "1 days 00:00:00"],
        [pd.Timedelta("1h"), pd.Timedelta("1D")],
    ),
    "bad date": (pd.to_datetime(["2024-01-01", "2024-01-02"]), ["2024-01-01", "soon"], ["2024-01-01", "soon"]),
    "no zone": (
        pd.to_datetime(["2024-01-01", "2024-01-02"], utc=True),
        ["2024-01-01 10:00:00.5", "2024-01-02 10:00:00.5"],
        ["2024-01-01 10:00:00.5", "2024-01-02 10:00:00.5"],
    ),
    "bad number": ([1.5, 2.5], ["x", "2"], ["x", "2"]),
}


@pytest.mark.parametrize("name", TYPED)
def test_a_second_file_is_read_in_the_dtypes_of_the_first(tmp_path, name):
    known, cells, expected = TYPED[name]
    dtype = describe(pd.Series(known), name)
    pd.DataFrame({"k": 1, name: cells}).to_csv(tmp_path / "t.csv", index=False)
    found = read_like(tmp_path / "t.csv", {name: dtype, "elsewhere": dtype})
    assert list(found.columns) == ["k", name]
    assert [None if x is pd.NaT else x for x in found[name]] == [None if x is pd.NaT else x for x in expected]
