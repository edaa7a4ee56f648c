"""Tables of the README that are made from records, each between two marks."""

import re
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"


def with_table(readme: str, name: str, maker: str, table: str) -> str:
    """The text of the README with ``table`` between the marks of ``name``, which ``benchmarks/<maker>`` makes."""
    begin, end = f"<!-- {name}: made by benchmarks/{maker} -->", f"<!-- end of {name} -->"
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", flags=re.DOTALL)
    text, found = pattern.subn(lambda _: f"{begin}\n\n{table.strip()}\n\n{end}", readme)
    if found != 1:
        raise SystemExit(f"{README} has the marks of the table {name!r} {found} times; it needs them once.")
    return text


def put_table(name: str, maker: str, table: str) -> None:
    """The same, in place."""
    README.write_text(with_table(README.read_text(encoding="utf-8"), name, maker, table), encoding="utf-8")
