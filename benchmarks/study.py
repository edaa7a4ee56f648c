"""A study: its record and tables, and its table in the README, from the folder of its sweep.

SECATEUR_DATA=... secateur sweep polyp-study --out runs/study    # hours; may be stopped, go on with --resume
python benchmarks/study.py polyp_study runs/study                # seconds
"""

import argparse
from pathlib import Path

from readme import put_table

from secateur.records import read_record, write_record
from secateur.report.sweeps.page import readme_table
from secateur.sweeps.record import read_sweep, sweep_tables

STUDIES = ("polyp_study", "nuclei_kumar", "nuclei_dsb2018_histology")


def record_path(study: str) -> Path:
    return Path(__file__).parent / "records" / study / "sweep.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("folder", type=Path, help="of its sweep")
    given = parser.parse_args()
    kept = record_path(given.study)
    write_record(kept, read_record(given.folder / kept.name))
    (kept.parent / "tables.md").write_text(sweep_tables(kept.parent), encoding="utf-8")
    put_table(given.study, "study.py", readme_table(read_sweep(kept.parent)))


if __name__ == "__main__":
    main()
