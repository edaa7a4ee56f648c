"""JSON records and atomic files: what is on disk is whole or absent."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from secateur.errors import RecordError

SCHEMA = 1

Record = dict[str, Any]  # JSON values; the keys of each kind of record are documented where it is made

_UMASK = os.umask(0)  # which can only be read by setting it
os.umask(_UMASK)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` that replaces it when the block ends without an exception."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    try:
        yield temporary
        temporary.chmod(0o666 & ~_UMASK)  # safetensors makes files that nobody else may read
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_record(path: Path, record: Mapping[str, Any]) -> None:
    """Write ``record`` as JSON with the schema version, atomically. Non-finite numbers are refused."""
    text = json.dumps({"schema": SCHEMA, **record}, indent=1, allow_nan=False)
    with atomic_path(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def read_record(path: Path) -> Record:
    """Read a record that `write_record` wrote.

    Raises:
        RecordError: the file is missing, is not a JSON object, or has another schema version.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RecordError(
            f"{path} does not exist; give a run folder written by secateur, and end a stopped run with --resume first."
        ) from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise RecordError(f"{path} is not a readable JSON record ({error}).") from error
    found = record.get("schema") if isinstance(record, dict) else None
    if found != SCHEMA:
        raise RecordError(
            f"{path} has schema {found!r}, this version of secateur reads {SCHEMA}; make it again with `secateur`."
        )
    return dict(record)
