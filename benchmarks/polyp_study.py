"""The polyp study: its record and tables, and the README's table, from the folder of its sweep.

SECATEUR_DATA=... secateur sweep polyp-study --out runs/study    # hours; may be stopped, go on with --resume
python benchmarks/polyp_study.py runs/study                      # seconds
"""

import re
import sys
from pathlib import Path

from secateur.records import read_record, write_record
from secateur.report.sweep import readme_table, sweep_markdown

_HERE = Path(__file__).parent
RECORD = _HERE / "records" / "polyp_study" / "sweep.json"
README = _HERE.parent / "README.md"
_BEGIN, _END = "<!-- polyp study: made by benchmarks/polyp_study.py -->", "<!-- end of polyp study -->"


def with_table(readme: str, table: str) -> str:
    """The text of the README with the study's table between its two marks."""
    pattern = re.compile(f"{re.escape(_BEGIN)}.*?{re.escape(_END)}", flags=re.DOTALL)
    text, found = pattern.subn(lambda _: f"{_BEGIN}\n\n{table.strip()}\n\n{_END}", readme)
    if found != 1:
        raise SystemExit(f"{README} has the marks of the table {found} times; it needs them once.")
    return text


def main() -> None:
    record = read_record(Path(sys.argv[1]) / "sweep.json")
    write_record(RECORD, record)
    (RECORD.parent / "tables.md").write_text(sweep_markdown(record), encoding="utf-8")
    README.write_text(with_table(README.read_text(encoding="utf-8"), readme_table(record)), encoding="utf-8")


if __name__ == "__main__":
    main()
