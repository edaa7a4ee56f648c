"""The polyp study: its record and tables, and the README's table, from the folder of its sweep.

SECATEUR_DATA=... secateur sweep polyp-study --out runs/study    # hours; may be stopped, go on with --resume
python benchmarks/polyp_study.py runs/study                      # seconds
"""

import sys
from pathlib import Path

from readme import put_table

from secateur.records import read_record, write_record
from secateur.report.sweep import readme_table, sweep_markdown

RECORD = Path(__file__).parent / "records" / "polyp_study" / "sweep.json"


def main() -> None:
    record = read_record(Path(sys.argv[1]) / "sweep.json")
    write_record(RECORD, record)
    (RECORD.parent / "tables.md").write_text(sweep_markdown(record), encoding="utf-8")
    put_table("polyp study", "polyp_study.py", readme_table(record))


if __name__ == "__main__":
    main()
