"""Plans are plain data: they print, travel through JSON, compose, and refuse networks they were not made for."""

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from masking import halving, plan_of, random_plan
from networks import traced
from secateur.errors import PlanMismatchError, RecipeError, RecordError
from secateur.prune.plan import PruningPlan, check_plan
from secateur.prune.schedule import geometric
from secateur.prune.surgery import remove


def toy():
    """The graph of a network with the groups ``first``, of six units, and ``conv``, of four."""
    return traced("concat_skip")[1]


@given(seed=st.integers(0, 2**32 - 1))
def test_json_gives_back_an_equal_plan(seed):
    plan = random_plan(toy(), seed=seed)
    plan = PruningPlan(plan.kept, plan.widths, "macs <= 0.1 of the network before", {"macs": 12, "ratio": 1 / 3})
    assert PruningPlan.from_json(json.loads(json.dumps(plan.to_json()))) == plan


@given(seeds=st.tuples(*[st.integers(0, 2**32 - 1)] * 3))
def test_composition_is_associative_and_knows_the_empty_plan(seeds):
    first = random_plan(toy(), seed=seeds[0])
    graph = toy().keep(first.kept)
    second = random_plan(graph, seed=seeds[1])
    third = random_plan(graph.keep(second.kept), seed=seeds[2])
    assert first.then(second).then(third) == first.then(second.then(third))
    empty = PruningPlan({}, {})
    assert first.then(empty).kept == empty.then(first).kept == first.kept


def test_composition_by_hand():
    first = plan_of(toy(), {"first": (1, 2, 4, 5)})
    second = PruningPlan({"first": (0, 3), "conv": (2,)}, {"first": 4, "conv": 4}, "half", {"macs": 7})
    both = first.then(second)
    assert both.kept == {"first": (1, 5), "conv": (2,)}
    assert both.widths == {"first": 6, "conv": 4}
    assert (both.budget, both.reached) == ("half", {"macs": 7})


def test_plans_compose_only_in_order():
    first = plan_of(toy(), {"first": (1, 2, 4)})
    with pytest.raises(PlanMismatchError, match=r"for 6 units of group 'first', the first leaves 3"):
        first.then(plan_of(toy(), {"first": (0,)}))


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (PruningPlan({"stem": (0,)}, {"stem": 6}), r"names group 'stem', .* \(it has first, conv, ...\)"),
        (PruningPlan({"first": (0,)}, {"first": 8}), r"for 8 units of group 'first', which has 6"),
        (PruningPlan({"first": ()}, {"first": 6}), r"empties group 'first'; keep at least one of 6"),
        (PruningPlan({"first": (0, 6)}, {"first": 6}), r"ascending indices below 6; got \[0, 6\]"),
        (PruningPlan({"first": (-1, 2)}, {"first": 6}), r"ascending indices below 6; got \[-1, 2\]"),
        (PruningPlan({"first": (2, 1)}, {"first": 6}), r"ascending indices below 6; got \[2, 1\]"),
        (PruningPlan({"first": (2, 2)}, {"first": 6}), r"ascending indices below 6; got \[2, 2\]"),
    ],
)
def test_a_plan_for_another_network_is_refused(plan, message):
    model = traced("concat_skip")[0]
    with pytest.raises(PlanMismatchError, match=message):
        check_plan(toy(), plan)
    with pytest.raises(PlanMismatchError, match=message):
        remove(model, toy(), plan)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"plan_schema": 2}, "has schema 2, this version reads 1"),
        ({"plan_schema": None}, "has schema None"),
        ({"groups": [{"id": "first"}]}, "incomplete: KeyError"),
        ({"groups": [{"id": "first", "width": "six", "kept": []}]}, "incomplete: ValueError"),
        ({"groups": None}, "incomplete: TypeError"),
    ],
)
def test_a_broken_record_is_refused(change, message):
    with pytest.raises(RecordError, match=message):
        PruningPlan.from_json(halving(toy()).to_json() | change)


def test_plans_print():
    text = str(PruningPlan({"first": (0, 2)}, {"first": 6}, "macs <= 0.5 of the network before"))
    assert text.split() == ["first", "6", "->", "2", "macs", "<=", "0.5", "of", "the", "network", "before"]
    assert str(PruningPlan({}, {})) == "(keeps everything)"


@given(rounds=st.integers(1, 50), keep_ratio=st.floats(1e-3, 1))
def test_the_schedule_falls_from_one_to_the_goal(rounds, keep_ratio):
    shares = [geometric(round_, rounds, keep_ratio) for round_ in range(rounds + 1)]
    assert shares[0] == 1.0
    assert shares[-1] == keep_ratio
    assert all(later <= earlier for earlier, later in itertools.pairwise(shares))
    steps = [later / earlier for earlier, later in itertools.pairwise(shares)]
    assert steps == pytest.approx([keep_ratio ** (1 / rounds)] * rounds)


@pytest.mark.parametrize("arguments", [(1, 0, 0.5), (-1, 3, 0.5), (4, 3, 0.5), (1, 3, 0.0), (1, 3, 1.5)])
def test_a_schedule_out_of_range_is_refused(arguments):
    round_, rounds, keep_ratio = arguments
    with pytest.raises(RecipeError, match=f"round {round_} of {rounds} with keep ratio {keep_ratio}"):
        geometric(*arguments)
