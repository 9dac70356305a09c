"""What is written can be read back."""

import csv
import io
import json
import math

from lm.scoring.columns import Table
from lm.scoring.output import Format, field, rows_in

TABLE: Table = {
    "text": [b'a"b', b"\t\n\\", "é\u2028".encode(), b"\xff"],
    "surprisal": [1.5, math.nan, 1e-9, math.inf],
    "rank": [1, None, 3, 4],
}


def written(format_: Format, *tables: Table) -> str:
    said: list[str] = []
    rows = rows_in(format_, list(TABLE), said.append)
    for table in tables:
        rows.write(table)
    return "".join(said)


def test_tsv_has_a_header_once_and_no_quotes() -> None:
    text = written(Format.tsv, {}, TABLE, {name: [] for name in TABLE}, TABLE)
    rows = list(csv.reader(io.StringIO(text), delimiter="\t", quoting=csv.QUOTE_NONE))
    assert rows[0] == ["text", "surprisal", "rank"]
    assert rows[1:5] == rows[5:] == [
        ['a"b', "1.500000", "1"],
        ["\\t\\n\\\\", "NA", "NA"],
        ["é\\u2028", "0.000000", "3"],
        ["\\xff", "inf", "4"],
    ]  # fmt: skip
    assert written(Format.tsv, {}) == ""


def test_escapes_can_be_undone() -> None:
    raw = bytes(range(128)) + "ä\u0085\u2029".encode()
    shown = field(raw)
    assert len(shown.splitlines()) == 1
    assert "\t" not in shown
    assert shown.encode("latin-1").decode("unicode_escape") == raw.decode()


def test_json_lines_have_null_where_there_is_no_number() -> None:
    rows = [json.loads(line) for line in written(Format.jsonl, TABLE).splitlines()]
    assert rows[0] == {"text": 'a"b', "surprisal": 1.5, "rank": 1}
    assert rows[1] == {"text": "\t\n\\", "surprisal": None, "rank": None}
    assert [row["surprisal"] for row in rows[2:]] == [0.0, None]
