"""From a template of this folder and its variables to one HTML text that opens offline."""

import shlex
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from secateur.errors import InputError
from secateur.report import rounding


def render(template: str, variables: Mapping[str, Any]) -> str:  # whatever the template takes
    """Fill a template; the figures' library goes into the page.

    Raises:
        InputError: a package of the extra ``report`` is missing.
    """
    require_report()
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from plotly.offline import get_plotlyjs

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "counted": rounding.counted,
        "megabytes": rounding.megabytes,
        "percent": rounding.percent,
        "ratio": rounding.ratio,
        "score": rounding.score,
        "signed": rounding.signed,
        "tiny": rounding.tiny,
        "command": _command_text,
    }
    return environment.get_template(template).render(**variables, plotly_js=get_plotlyjs())


def require_report() -> None:
    """See that the packages of the extra ``report`` are installed, before long work that ends with a page.

    Raises:
        InputError: one is missing.
    """
    for name in ("jinja2", "plotly"):
        if find_spec(name) is None:
            raise InputError(f"the report needs {name}, which is not installed; `pip install secateur[report]`.")


def _command_text(command: str | Sequence[str]) -> str:
    return command if isinstance(command, str) else shlex.join(command)
