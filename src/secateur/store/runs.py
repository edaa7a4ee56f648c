"""Run folders: made once, opened with a check, never overwritten by accident."""

import os
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from secateur.errors import InputError, RecordError
from secateur.records import Record, read_record, write_record

_RUN = "run.json"
_PACKAGES = ("secateur", "torch", "monai", "numpy", "accelerate", "onnx", "onnxruntime", "openvino")


@dataclass(frozen=True)
class RunFolder:
    """A folder that holds one network and the records about it."""

    path: Path

    @property
    def run(self) -> Record:
        """What ``run.json`` says.

        Raises:
            RecordError: the folder is not a run folder, or of another schema.
        """
        if not (self.path / _RUN).is_file():
            raise RecordError(
                f"{self.path} is not a run folder (it has no {_RUN}); give one that `secateur train` or "
                f"`secateur prune` wrote."
            )
        return read_record(self.path / _RUN)

    def check(self) -> None:
        """Raise `RecordError` unless this is a run folder of a schema that can be read."""
        _ = self.run

    def begin(self, facts: Record, command: list[str], *, resume: bool, overwrite: bool) -> None:
        """Make the folder, or continue in it.

        Args:
            facts: what ``run.json`` starts with; on resume it must be what the folder was begun with, except for
                the ``name``: folders may be renamed.
            command: added to the history of commands.
            resume: continue in the folder where it exists.
            overwrite: empty the folder first where it exists.

        Raises:
            InputError: the folder exists and neither was asked for, or another run was begun in it.
        """
        taken = self.is_taken()
        if taken and not resume and not overwrite:
            raise InputError(
                f"{self.path} exists; give another --out, --resume to go on, or --overwrite to begin again."
            )
        if taken and not resume:
            self._empty()
        if taken and resume:
            before = self.run
            changed = [key for key, value in facts.items() if before.get(key) != value and key != "name"]
            if changed:
                raise InputError(
                    f"{self.path} was begun with another {', '.join(changed)}; give the same settings to --resume, "
                    f"another --out, or --overwrite."
                )
            self.add(name=facts["name"])
            self.note(command)
        else:
            history = {"command": command, "commands": [command], "created": _now()}
            write_record(self.path / _RUN, {**facts, **history, **surroundings()})

    def note(self, command: list[str]) -> None:
        """Add a command to the history in ``run.json``; one that does several things there is added once."""
        commands = self.run["commands"]
        if commands[-1] != command:
            self.add(commands=[*commands, command])

    def add(self, **facts: Any) -> None:  # JSON values
        """Add findings to ``run.json``."""
        write_record(self.path / _RUN, {**self.run, **facts})

    def abandon(self) -> None:
        """Remove the folder, unless a checkpoint in it holds work that a resume could use."""
        if not (self.path / "checkpoints").exists():
            self._empty()

    def is_taken(self) -> bool:
        """Whether anything is there besides what a process killed in its first write left."""
        if not self.path.is_dir():
            return self.path.exists()
        return any(not entry.name.endswith(".part") for entry in self.path.iterdir())

    def _empty(self) -> None:
        self.check()  # refuses to empty a folder that secateur did not make
        shutil.rmtree(self.path)


def surroundings() -> Record:
    """Versions, git revision and machine, for records."""
    return {"versions": _versions(), "git_revision": _git_revision(), "machine": _machine()}


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _git_revision() -> str | None:
    """The revision of the checkout that this code lies in; None for an installed package."""
    folder = Path(__file__).parent
    try:
        answer = subprocess.run(
            ["git", "-C", str(folder), "rev-parse", "HEAD"], capture_output=True, text=True, check=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()


def _machine() -> dict[str, Any]:
    return {
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": platform.system(),
    }


def _cpu_name() -> str:
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
