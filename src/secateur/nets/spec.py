"""How to rebuild a network: a builder's name and its arguments, never a pickle."""

import importlib
import inspect
import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import nn

from secateur.errors import InputError, RecipeError


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class ModelSpec:
    """A network by its builder.

    Attributes:
        builder: ``"package.module:name"`` of an ``nn.Module`` class or of a function that returns one.
        kwargs: its arguments, JSON values only.

    Building imports and calls what ``builder`` names: load run folders only from people you trust, as you would
    install a package. Where no such package is installed, it is looked for in the current folder.
    """

    builder: str
    kwargs: Mapping[str, Any] = Field(default_factory=dict)

    def build(self) -> nn.Module:
        """Return a new network; its initial weights come from torch's global random state.

        Raises:
            RecipeError: the builder cannot be imported or called so, or what it returns is not a network.
            InputError: what the builder itself raises of that kind.
        """
        builder = self._import()
        try:
            with searched(Path.cwd()) if _is_here(builder) else nullcontext():
                model = builder(**self.kwargs)
        except InputError:  # a builder of ours, which says best itself what is wrong
            raise
        except (TypeError, ValueError, AssertionError, LookupError, AttributeError, RuntimeError, ImportError) as error:
            raise RecipeError(
                f"{self.builder} cannot be called with {json.dumps(dict(self.kwargs))}: {error}"
            ) from error
        if not isinstance(model, nn.Module):
            raise RecipeError(f"{self.builder} returns {type(model).__name__}; name a builder of an nn.Module.")
        return model

    def to_json(self) -> dict[str, Any]:
        """``{"builder": ..., "kwargs": ...}``"""
        return {"builder": self.builder, "kwargs": dict(self.kwargs)}

    def _import(self) -> Any:  # a class or function of the user's
        module_name, _, name = self.builder.partition(":")
        if not module_name or not name:
            raise RecipeError(
                f"{self.builder!r} is not a builder; write package.module:name, such as monai.networks.nets:UNet."
            )
        try:
            builder = getattr(_import_module(module_name), name)
        except (ImportError, AttributeError) as error:
            raise RecipeError(
                f"{self.builder!r} cannot be imported: {error}. Check its spelling, and "
                f"that its package is installed, in the current folder or on PYTHONPATH."
            ) from error
        if not (inspect.isfunction(builder) or (inspect.isclass(builder) and issubclass(builder, nn.Module))):
            raise RecipeError(f"{self.builder!r} is neither a function nor a class of networks; name one that is.")
        return builder


def _import_module(name: str) -> ModuleType:
    """Import a module, from the current folder only where nothing else has its package: data may lie there too."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name.partition(".")[0]:
            raise
    with searched(Path.cwd()):
        return importlib.import_module(name)


def _is_here(builder: Any) -> bool:  # a class or function of the user's
    file = getattr(sys.modules.get(builder.__module__), "__file__", None)
    return file is not None and Path(file).is_relative_to(Path.cwd())


@contextmanager
def searched(folder: Path) -> Iterator[None]:
    """Import from ``folder`` too, after everywhere else."""
    sys.path.append(str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
