"""Import the packages of the ``deploy`` extra: late, with a clear line when one is missing, and silent."""

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
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
        raise InputError(
            f"{name} needs the package '{error.name}', which is not installed; run `pip install secateur[deploy]`."
        ) from error


def require_deploy() -> None:
    """Import all that files for the runtimes need; `InputError` where a package is missing."""
    for name in ("onnx", "onnxscript", "onnxruntime", "openvino"):
        import_extra(name)


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
