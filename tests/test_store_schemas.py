"""Run folders of every schema that was ever shipped stay readable; see tests/fixtures."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import secateur as sc
from secateur.inspection import inspect
from secateur.opening import open_model
from secateur.recipes.recipe import read_recipe
from secateur.records import SCHEMA
from secateur.store.networks import read_architecture
from secateur.store.runs import RunFolder

FOLDERS = sorted((Path(__file__).parent / "fixtures").glob("schema-*"))


def test_there_is_a_folder_for_every_schema():
    assert [folder.name for folder in FOLDERS] == [f"schema-{number}" for number in range(1, SCHEMA + 1)]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_an_old_run_folder_is_read(folder):
    assert RunFolder(folder).run["role"] == "pruned"
    recipe = read_recipe(folder / "recipe.yaml")
    spec, plan = read_architecture(folder)
    assert spec == recipe.network
    assert plan is not None
    expected = load_file(folder / "expected.safetensors")
    with torch.no_grad():
        torch.testing.assert_close(sc.load(folder)(expected["image"]), expected["logits"])
    assert inspect(open_model(str(folder)))["params"] == plan.reached["params"]
