"""A table that a spreadsheet opens holds no formula, and the numbers are what they were."""

import csv

import hypothesis.strategies as st
import pandas as pd
from hypothesis import given

from analysis.data.csv_files import write_csv


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), min_size=1), min_size=1))
def test_no_text_begins_as_a_formula_does(tmp_path_factory, texts):
    path = tmp_path_factory.mktemp("csv") / "t.csv"
    write_csv(pd.DataFrame({"=name": texts, "x": -1.5}), path)
    with path.open(encoding="utf-8", newline="") as stream:
        header, *rows = csv.reader(stream)
    assert header == ["'=name", "x"]
    assert [row[0].removeprefix("'") for row in rows] == [text.removeprefix("'") for text in texts]
    assert not any(row[0].startswith(("=", "+", "-", "@", "\t")) for row in rows)
    assert {row[1] for row in rows} == {"-1.5"}
