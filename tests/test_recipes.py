"""Recipes: frozen, one YAML file, unknown keys fail with the value in the message."""

import pytest

from secateur.errors import RecipeError
from secateur.recipes import RECIPES
from secateur.recipes.recipe import parse_settings, read_recipe


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_survives_its_file(tmp_path, name):
    recipe = RECIPES[name]()
    recipe.write(tmp_path / "recipe.yaml")
    assert read_recipe(tmp_path / "recipe.yaml") == recipe


def test_settings_replace_by_dotted_key():
    settings = parse_settings(
        ["training.epochs=3", "pruning.recovery.learning_rate=1e-3", "network.kwargs.channels=[4, 8]"]
    )
    recipe = RECIPES["polyp"]().with_settings(settings)
    assert recipe.training.epochs == 3
    assert recipe.pruning.recovery.learning_rate == pytest.approx(1e-3)
    assert recipe.network.kwargs["channels"] == [4, 8]
    assert RECIPES["polyp"]().training.epochs != 3


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ("training.epoch=3", "training has no 'epoch'; it has epochs"),
        ("trainin.epochs=3", "a recipe has no 'trainin'; it has task, network"),
        ("training.epochs=0", r"training.epochs: .*greater than or equal to 1 \(given: 0\)"),
        ("training.epochs=many", r"training.epochs: .*\(given: 'many'\)"),
        ("ratios.compressions=[1]", "this recipe has no ratios; give all of it"),
        ("training.epochs.more=1", "training.epochs has no 'more'; it has nothing below it"),
        ("pruning.keep_ratio=1.5", r"pruning.keep_ratio: .*less than or equal to 1 \(given: 1.5\)"),
        ("pruning.criterion=tailor", "no criterion is called 'tailor'; did you mean 'taylor'"),
        ("training.epochs", "has no value; write it as key=value"),
        ("training.epochs=[", "is not a value"),
    ],
)
def test_wrong_settings_are_named(pair, message):
    with pytest.raises(RecipeError, match=message):
        RECIPES["polyp"]().with_settings(parse_settings([pair]))


def test_two_of_four_is_no_number_to_the_base_of_sixty(tmp_path):
    assert parse_settings(["sparsity.scope=2:4", "ratios.scopes=[layer, 2:4]", "training.seed=0x10"]) == {
        "sparsity.scope": "2:4", "ratios.scopes": ["layer", "2:4"], "training.seed": 16,
    }  # fmt: skip
    (tmp_path / "recipe.yaml").write_text("network: {builder: 'a:b'}\nsparsity: {scope: 2:4, compression: 2}\n")
    assert read_recipe(tmp_path / "recipe.yaml").sparsity.scope == "2:4"


def test_a_file_that_is_no_recipe_is_named(tmp_path):
    with pytest.raises(RecipeError, match="cannot be read as YAML"):
        read_recipe(tmp_path / "absent.yaml")
    (tmp_path / "list.yaml").write_text("- 1\n")
    with pytest.raises(RecipeError, match=r"list.yaml: .*\(given: \[1\]\)"):
        read_recipe(tmp_path / "list.yaml")
    (tmp_path / "odd.yaml").write_text("network: {builder: 'a:b', kwargs: {}}\nspeed: 3\n")
    with pytest.raises(RecipeError, match="speed: Extra inputs are not permitted"):
        read_recipe(tmp_path / "odd.yaml")
