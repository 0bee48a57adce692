"""Files of texts, in one way for every format, so that no text is changed on its way in.

    .txt       a text a line, blank lines left out; one column
    .jsonl     an object a line, blank lines left out
    .csv       comma-separated, with a line of column names
    .parquet   columns of strings, also dictionary-encoded (categorical) ones

Text files are UTF-8, with or without a byte order mark, and lines end in LF, CRLF or CR; the other characters that
`str.splitlines` ends a line at belong to the text.
"""

import csv
import io
import json
import re
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from gold_rm.errors import UserError
from gold_rm.prompts import ConversationError, spell

_LINE_END = re.compile(r"\r\n|\n|\r")


class TextFileError(UserError):
    """A file of texts that cannot be read as such: which file and line, and what is wrong there."""


def read_texts(
    path: Path, columns: Sequence[str], optional: Sequence[str] = (), *, conversations: Sequence[str] = ()
) -> pd.DataFrame:
    """Read text columns of a file.

    Args:
        columns: those that must be there; a .txt is the first of them.
        optional: those that are read where they are there. Others are left out.
        conversations: those in which a value may be a list of messages, which becomes a text (`gold_rm.prompts`).
    Raises:
        TextFileError: no such file, another encoding, no such format, a column is missing, or a value is no text.
    """
    if not path.is_file():
        raise TextFileError(f"{path}: no such file; {' or '.join(_READERS)} with {', '.join(columns)} is needed")
    if path.suffix not in _READERS:
        raise TextFileError(f"{path}: must end in {', '.join(_READERS)}")
    frame = _READERS[path.suffix](path, columns[0])
    if absent := [column for column in columns if column not in frame]:
        seen = ", ".join(map(str, frame.columns)) or "none"
        raise TextFileError(f"{path}: column {absent[0]!r} is missing; its columns are {seen}")
    kept = [*columns, *(column for column in optional if column in frame)]
    texts = {column: frame[column].tolist() for column in kept}
    for column, values in texts.items():
        if column in conversations:
            texts[column] = values = _spelled(path, column, values)
        _require_texts(path, column, values)
    return pd.DataFrame({column: pd.Series(values, dtype="str") for column, values in texts.items()})


def normalized(text: str) -> str:
    """What texts that look alike have in common: Unicode's canonical composition (NFC)."""
    return unicodedata.normalize("NFC", text)


def _spelled(path: Path, column: str, values: Sequence[object]) -> list[object]:
    spelled: list[object] = []
    for row, value in enumerate(values, start=1):
        try:  # parquet gives arrays
            spelled.append(spell(list(value)) if isinstance(value, list | np.ndarray) else value)
        except ConversationError as error:
            raise TextFileError(f"{path}: {column!r} in row {row}: {error}") from error
    return spelled


def _require_texts(path: Path, column: str, values: Sequence[object]) -> None:
    bad = [(row, value) for row, value in enumerate(values, start=1) if not isinstance(value, str)]
    if bad:
        row, value = bad[0]
        raise TextFileError(f"{path}: {len(bad)} values of {column!r} are no texts, such as {value!r:.80} in row {row}")
    for row, value in enumerate(values, start=1):
        try:
            str(value).encode()
        except UnicodeEncodeError as error:  # one half of a pair, as of a text that was cut between them
            raise TextFileError(f"{path}: {column!r} in row {row} has a lone surrogate ({error.reason})") from error


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise TextFileError(f"{path}: not UTF-8 at byte {error.start} ({error.reason}); save it as UTF-8") from error


def _read_txt(path: Path, column: str) -> pd.DataFrame:
    return pd.DataFrame({column: [line for line in _LINE_END.split(_text(path)) if line.strip()]}, dtype="str")


def _read_jsonl(path: Path, column: str) -> pd.DataFrame:
    rows = []
    for number, line in enumerate(_LINE_END.split(_text(path)), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise TextFileError(f"{path}:{number}: cannot be read as JSON ({error})") from error
        if not isinstance(row, dict):
            raise TextFileError(f"{path}:{number}: holds {line[:40]!r}, an object such as {{{column!r}: …}} is needed")
        rows.append(row)
    names = dict.fromkeys(name for row in rows for name in row)
    return pd.DataFrame({name: pd.Series([row.get(name) for row in rows], dtype=object) for name in names})


def _read_csv(path: Path, column: str) -> pd.DataFrame:
    try:
        rows = list(csv.reader(io.StringIO(_text(path), newline=""), strict=True))
    except csv.Error as error:
        raise TextFileError(f"{path}: cannot be read as CSV ({error})") from error
    rows = [row for row in rows if row]
    names = rows[0] if rows else []
    if len(set(names)) < len(names):
        raise TextFileError(f"{path}: a column name occurs twice in {', '.join(names)}")
    for number, row in enumerate(rows[1:], start=1):
        if len(row) != len(names):
            raise TextFileError(f"{path}: row {number} has {len(row)} values for {len(names)} columns")
    return pd.DataFrame(rows[1:], columns=names, dtype=object)


def _read_parquet(path: Path, column: str) -> pd.DataFrame:
    try:
        return pd.read_parquet(path)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise TextFileError(f"{path}: not a readable parquet file ({str(error).splitlines()[0]})") from error


_READERS: dict[str, Callable[[Path, str], pd.DataFrame]] = {
    ".txt": _read_txt,
    ".jsonl": _read_jsonl,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
}
