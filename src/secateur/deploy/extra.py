"""Import the packages of the ``deploy`` extra: late, with a clear line when one is missing, and silent."""

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from types import ModuleType

from secateur.errors import InputError


def import_extra(name: str) -> ModuleType:
    """Import the package ``name`` of the ``deploy`` extra.

    Raises:
        InputError: the package is not installed.
    """
    try:
        with _without_usage_reports():
            return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise InputError(_missing(name, error.name)) from error


def require_extra(*names: str) -> None:
    """See that packages of the ``deploy`` extra are installed, before long work that ends with them.

    Raises:
        InputError: a package is not installed.
    """
    for name in names:
        if find_spec(name) is None:
            raise InputError(_missing(name, name))


def _missing(name: str, package: str | None) -> str:
    return f"{name} needs the package '{package}', which is not installed; run `pip install secateur[deploy]`."


@contextmanager
def _without_usage_reports() -> Iterator[None]:
    """Hide ``openvino_telemetry``: importing OpenVINO would send an event to its makers.

    OpenVINO then uses its own stub. ``None`` in ``sys.modules`` is how Python marks a module as absent.
    """
    name = "openvino_telemetry"
    known = sys.modules.get(name)
    sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[name]
        if known is not None:
            sys.modules[name] = known
