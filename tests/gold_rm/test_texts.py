"""Files of texts: whatever is written comes back as it was, in every format, or is refused in one line."""

import csv
import json

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gold_rm.texts import TextFileError, normalized, read_texts

# Every character but halves of surrogate pairs, which no UTF-8 file can hold.
texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
line_texts = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\r\n"), max_size=20)
fast = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@fast
@given(values=st.lists(texts, min_size=1, max_size=5), bom=st.booleans(), ending=st.sampled_from(["\n", "\r\n", "\r"]))
def test_jsonl_keeps_every_text(tmp_path, values, bom, ending):
    lines = ending.join(json.dumps({"prompt": value}, ensure_ascii=bool(len(value) % 2)) for value in values)
    (tmp_path / "t.jsonl").write_bytes(b"\xef\xbb\xbf" * bom + lines.encode())
    assert read_texts(tmp_path / "t.jsonl", ("prompt",))["prompt"].tolist() == values


@fast
@given(values=st.lists(texts, min_size=1, max_size=5), bom=st.booleans())
def test_csv_keeps_every_text(tmp_path, values, bom):
    with (tmp_path / "t.csv").open("w", encoding="utf-8-sig" if bom else "utf-8", newline="") as stream:
        csv.writer(stream, quoting=csv.QUOTE_ALL).writerows([["id", "prompt"], *((n, v) for n, v in enumerate(values))])
    assert read_texts(tmp_path / "t.csv", ("prompt",))["prompt"].tolist() == values


@fast
@given(values=st.lists(texts, min_size=1, max_size=5), categorical=st.booleans())
def test_parquet_keeps_every_text(tmp_path, values, categorical):
    frame = pd.DataFrame({"prompt": values})
    (frame.astype("category") if categorical else frame).to_parquet(tmp_path / "t.parquet", index=False)
    assert read_texts(tmp_path / "t.parquet", ("prompt",))["prompt"].tolist() == values


@fast
@given(
    values=st.lists(line_texts, min_size=1, max_size=5),
    bom=st.booleans(),
    ending=st.sampled_from(["\n", "\r\n", "\r"]),
)
def test_txt_ends_lines_at_line_ends_only(tmp_path, values, bom, ending):
    (tmp_path / "t.txt").write_bytes(b"\xef\xbb\xbf" * bom + ending.join(values).encode())
    # A text file has one place for a byte order mark: the first character of a text cannot be one.
    expected = [v for v in values if v.strip()]
    if not bom and values[0].startswith("\ufeff"):
        expected = [v for v in (values[0][1:], *values[1:]) if v.strip()]
    assert read_texts(tmp_path / "t.txt", ("prompt",))["prompt"].tolist() == expected


@fast
@given(content=st.binary(max_size=60), suffix=st.sampled_from([".txt", ".jsonl", ".csv", ".parquet"]))
def test_any_bytes_are_read_or_refused_in_one_line(tmp_path, content, suffix):
    path = tmp_path / f"t{suffix}"
    path.write_bytes(content)
    try:
        read, refusal = read_texts(path, ("prompt",))["prompt"].tolist(), None
    except TextFileError as error:
        read, refusal = [], str(error)
    assert all(isinstance(text, str) for text in read)
    assert refusal is None or (refusal.startswith(str(path)) and len(refusal.splitlines()) == 1)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("latin.txt", "café".encode("latin-1"), r"latin\.txt: not UTF-8 at byte 3 .*; save it as UTF-8"),
        ("wide.txt", "café".encode("utf-16"), r"wide\.txt: not UTF-8 at byte 0"),
        ("high.jsonl", rb'{"prompt": "a \ud83d b"}', r"high\.jsonl: 'prompt' in row 1 has a lone surrogate"),
        ("low.jsonl", rb'{"prompt": "a \udc00 b"}', r"low\.jsonl: 'prompt' in row 1 has a lone surrogate"),
        ("deep.jsonl", b"[" * 100_000, r"deep\.jsonl:1: cannot be read as JSON"),
        ("list.jsonl", b'["a"]', r"list\.jsonl:1: holds '\[\"a\"\]', an object"),
        ("number.jsonl", b'{"prompt": 7}', r"1 values of 'prompt' are no texts, such as 7 in row 1"),
        ("none.jsonl", b"", r"column 'prompt' is missing; its columns are none"),
        ("twice.csv", b"prompt,prompt\na,b\n", r"twice\.csv: a column name occurs twice"),
        ("short.csv", b"id,prompt\n1\n", r"short\.csv: row 1 has 1 values for 2 columns"),
        ("open.csv", b'prompt\n"a', r"open\.csv: cannot be read as CSV"),
        ("other.yaml", b"a", r"must end in \.txt, \.jsonl, \.csv, \.parquet"),
    ],
)
def test_refused_files(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(TextFileError, match=message):
        read_texts(tmp_path / name, ("prompt",))


def test_numbers_in_a_parquet_column_are_no_texts(tmp_path):
    pd.DataFrame({"prompt": [1, 2]}).to_parquet(tmp_path / "t.parquet")
    with pytest.raises(TextFileError, match="2 values of 'prompt' are no texts, such as 1 in row 1"):
        read_texts(tmp_path / "t.parquet", ("prompt",))


def test_a_directory_and_a_pipe_are_no_files(tmp_path):
    import os

    (tmp_path / "d.txt").mkdir()
    os.mkfifo(tmp_path / "p.txt")
    for name in ("d.txt", "p.txt", "absent.txt"):
        with pytest.raises(TextFileError, match="no such file"):
            read_texts(tmp_path / name, ("prompt",))


def test_one_text_in_two_spellings():
    assert normalized("e\u0301") == normalized("\u00e9") != normalized("e")
