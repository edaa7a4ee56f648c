"""What `secateur inspect` says, against the layers' own shapes and the recipe's floors."""

import json
import math
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import secateur as sc
from secateur.cost.macs import count_macs, count_params
from secateur.errors import BudgetError, InputError
from secateur.graph.describe import describe, table
from secateur.inspection import dry_run_recipe, inspect
from secateur.opening import OpenedModel, open_model
from secateur.prune.allocate import Floors
from secateur.store.networks import load
from secateur.without_data import cut_recipe

RUN = Path(__file__).parent / "fixtures" / "schema-1"


class Net(nn.Module):
    """Two convolutions tied by an addition, a norm on one of them, then a head."""

    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(3, 16, 1, bias=False)
        self.norm = nn.BatchNorm2d(16)
        self.middle, self.head = nn.Conv2d(16, 24, 1), nn.Conv2d(24, 1, 1)

    def forward(self, x):
        return self.head(F.relu(self.middle(self.norm(self.left(x)) + self.right(x))))


@pytest.fixture(scope="module")
def graph():
    return sc.trace(Net(), torch.zeros(1, 3, 8, 8))


def test_each_group_is_described(graph):
    left, middle = describe(graph)
    assert (left.written_by, left.followed_by, left.read_by) == (("left", "right"), ("norm",), ("middle",))
    assert (middle.written_by, middle.followed_by, middle.read_by) == (("middle",), (), ("head",))
    pixels, convs = 64, {"left": 3 * 16 * 9, "right": 3 * 16, "middle": 16 * 24, "head": 24}
    macs = pixels * sum(convs.values())
    assert count_macs(Net(), torch.zeros(1, 3, 8, 8)) == macs
    assert left.macs_share == pytest.approx(pixels * (convs["left"] + convs["right"] + convs["middle"]) / macs)
    assert middle.macs_share == pytest.approx(pixels * (convs["middle"] + convs["head"]) / macs)
    params = count_params(Net())
    # middle's own bias belongs to its own group, and so does the head's weight
    assert left.params_share == pytest.approx((16 * 27 + 16 + 48 + 32 + 16 * 24) / params)
    assert middle.params_share == pytest.approx((16 * 24 + 24 + 24) / params)


def test_the_table_shows_all_of_it(graph):
    first, second, third, fourth = table(graph).splitlines()
    assert first.split()[:4] == ["group", "channels", "MACs", "params"]
    assert second.split()[:2] == ["left", "16"]
    assert second.endswith("left, right <- norm; middle")
    assert third.endswith("middle <- -; head")
    assert fourth == "pinned: head [1]: network output (seen in head)"


def test_the_recipe_of_a_run_folder_sets_the_floors():
    """The run's recipe keeps at least half of each width and two channels, in steps of one."""
    opened = open_model(str(RUN))
    record = inspect(opened, dry_run=dry_run_recipe(str(RUN), {"pruning.keep_ratio": 0.85}))
    dry = record["dry_run"]
    assert (dry["round_to"], dry["min_channels"], dry["min_keep_ratio"]) == (1, 2, 0.5)
    assert dry["budget"] == {"kind": "macs", "keep_ratio": 0.85}
    widths = {row["id"]: row["width"] for row in record["group_table"]}
    assert all(dry["kept"][group] >= max(2, math.ceil(width / 2)) for group, width in widths.items())
    assert dry["macs"] / record["macs"] == pytest.approx(dry["macs_keep_ratio"])
    assert dry["macs_keep_ratio"] <= 0.85
    with pytest.raises(BudgetError, match=r"with at least 2 channels and 50% of its width"):
        inspect(opened, dry_run=dry_run_recipe(str(RUN), {"pruning.keep_ratio": 0.05}))
    coarser = dry_run_recipe(str(RUN), {"pruning.keep_ratio": 0.85, "pruning.round_to": 2})
    assert inspect(opened, dry_run=coarser)["dry_run"]["round_to"] == 2
    assert dry_run_recipe(str(RUN), {"pruning.criterion": "l2"}) is None


@pytest.mark.parametrize(
    "floors", [Floors(), Floors(1, 3, 0.0), Floors(4, 1, 0.3), Floors(3, 2, 0.9), Floors(8, 8, 0.5)]
)
def test_floors_are_what_the_smallest_network_keeps(graph, floors):
    scores = {group.id: torch.arange(float(group.width)) for group in graph.groups}
    with pytest.raises(BudgetError) as error:
        _allocate(graph, scores, 1e-6, floors)
    nearest = float(str(error.value).split("keeps ")[1].split()[0])
    plan = _allocate(graph, scores, nearest, floors)
    assert [len(plan.kept.get(group.id, range(group.width))) for group in graph.groups] == [
        floors.kept(group) for group in graph.groups
    ]


def _allocate(graph, scores, share, floors):
    return sc.allocate(
        graph, scores, sc.MacsBudget(share), round_to=floors.round_to, min_channels=floors.min_channels,
        min_keep_ratio=floors.min_keep_ratio,
    )  # fmt: skip


def test_everything_is_counted_in_channels():
    """Four norm groups of eight channels, of which one has to stay; six of the head, which stay."""
    model = nn.Sequential(nn.Conv2d(3, 32, 1), nn.GroupNorm(4, 32), nn.Conv2d(32, 6, 1))
    recipe = cut_recipe({"pruning.keep_ratio": 0.6})
    record = inspect(OpenedModel("any", model, (1, 3, 8, 8)), dry_run=recipe)
    assert (record["channels"], record["removable"]) == (32 + 6, 24)
    (row,) = record["group_table"]
    assert (row["width"], row["units"]) == (32, 4)
    assert record["dry_run"]["kept"] == {"0": 16}
    assert record["dry_run"]["at_floor"] == []


def test_what_hits_its_floor_is_named_and_nothing_is_touched():
    model = Net()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    recipe = cut_recipe({"pruning.budget": "params", "pruning.keep_ratio": 0.55})
    dry = inspect(OpenedModel("any", model, (1, 3, 8, 8)), dry_run=recipe)["dry_run"]
    assert dry["budget"]["kind"] == "params"
    assert dry["params_keep_ratio"] <= 0.55
    assert dry["at_floor"] == [group for group, kept in dry["kept"].items() if kept == 8]
    assert dry["at_floor"]
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_open_model_takes_runs_and_builders():
    run = open_model(str(RUN))
    assert run.input_shape == (1, 3, 32, 32)
    assert run.spec is not None
    image = torch.randn(run.input_shape)
    assert torch.equal(run.model(image), load(RUN)(image))
    kwargs = json.dumps({"spatial_dims": 2, "in_channels": 3, "out_channels": 1, "channels": [4, 8], "strides": [2]})
    built = open_model("monai.networks.nets:UNet", kwargs=kwargs, input_shape="1,3,16,16")
    assert built.model(torch.zeros(built.input_shape)).shape == (1, 1, 16, 16)
    with pytest.raises(InputError, match="is not a run folder"):
        open_model("nowhere")
