"""A plan: which units of each group stay. Plain data that prints, diffs, composes and goes through JSON."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from secateur.errors import PlanMismatchError, RecordError
from secateur.graph.records import ChannelGraph, GroupId

PLAN_SCHEMA = 1


@dataclass(frozen=True)
class PruningPlan:
    """The units that stay.

    Attributes:
        kept: per group the ascending indices of the kept units; never empty. Groups that are absent stay whole.
        widths: per group in ``kept``, the width C_g of the network for which the plan was made.
        budget: what was asked, as text, e.g. ``"macs <= 0.1 of the network before"``.
        reached: parameters and MACs per sample after removal, and their share of the network before.
        approximate: the groups in ``kept`` that are not exact, see `secateur.graph.group_norm.GroupNormMode`. Their
            units are others than those of an exact group of the same name.
    """

    kept: Mapping[GroupId, tuple[int, ...]]
    widths: Mapping[GroupId, int]
    budget: str = ""
    reached: Mapping[str, float] = field(default_factory=dict)
    approximate: frozenset[GroupId] = frozenset()

    def then(self, following: "PruningPlan") -> "PruningPlan":
        """The one plan that does what this one and then ``following`` do; ``reached`` is the latter's."""
        kept = dict(self.kept)
        widths = dict(self.widths)
        for group, indices in following.kept.items():
            first = self.kept.get(group, tuple(range(following.widths[group])))
            if len(first) != following.widths[group]:
                raise PlanMismatchError(
                    f"the second plan is for {following.widths[group]} units of group {group!r}, "
                    f"the first leaves {len(first)}; compose plans in the order in which they were made."
                )
            if group in self.kept and (group in self.approximate) != (group in following.approximate):
                raise PlanMismatchError(
                    f"one of the plans takes group {group!r} apart exactly, the other approximately; "
                    f"compose plans from graphs that were traced with the same group_norm."
                )
            kept[group] = tuple(first[index] for index in indices)
            widths.setdefault(group, following.widths[group])
        approximate = self.approximate | following.approximate
        return PruningPlan(kept, widths, following.budget or self.budget, following.reached, approximate)

    def to_json(self) -> dict[str, Any]:
        """The plan as JSON values; `from_json` gives back an equal plan."""
        return {
            "plan_schema": PLAN_SCHEMA,
            "budget": self.budget,
            "reached": dict(self.reached),
            "groups": [
                {"id": group, "width": self.widths[group], "kept": list(kept), "exact": group not in self.approximate}
                for group, kept in self.kept.items()
            ],
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "PruningPlan":
        """Read what `to_json` wrote.

        Raises:
            RecordError: the record has another schema, or keys are missing.
        """
        if record.get("plan_schema") != PLAN_SCHEMA:
            raise RecordError(f"the plan has schema {record.get('plan_schema')!r}, this version reads {PLAN_SCHEMA}.")
        try:
            groups = [(GroupId(item["id"]), int(item["width"]), item["kept"]) for item in record["groups"]]
            return cls(
                {group: tuple(int(index) for index in kept) for group, _, kept in groups},
                {group: width for group, width, _ in groups},
                record["budget"],
                dict(record["reached"]),
                frozenset(GroupId(item["id"]) for item in record["groups"] if not item.get("exact", True)),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise RecordError(f"the plan is incomplete: {error!r}.") from error

    def __str__(self) -> str:
        rows = [
            f"{group:44} {self.widths[group]:5d} -> {len(kept):5d}"
            + (" (approximate)" if group in self.approximate else "")
            for group, kept in self.kept.items()
        ]
        return "\n".join([*rows, self.budget]) if rows else "(keeps everything)"


def check_plan(graph: ChannelGraph, plan: PruningPlan) -> None:
    """Raise `PlanMismatchError` unless ``plan`` fits ``graph``: known groups, their widths and units, valid indices."""
    widths = {group.id: group.width for group in graph.groups}
    inexact = {group.id for group in graph.groups if not group.exact}
    for group, kept in plan.kept.items():
        if group not in widths:
            known = ", ".join(list(widths)[:5])
            raise PlanMismatchError(
                f"the plan names group {group!r}, which this network does not have (it has {known}, ...); "
                f"make a plan from this network's own graph."
            )
        if plan.widths[group] != widths[group]:
            raise PlanMismatchError(
                f"the plan is for {plan.widths[group]} units of group {group!r}, which has {widths[group]}; "
                f"make a new plan, or load the network that the plan was made for."
            )
        if (group in plan.approximate) != (group in inexact):
            words = ("approximately", "exactly") if group in plan.approximate else ("exactly", "approximately")
            raise PlanMismatchError(
                f"the plan takes group {group!r} apart {words[0]}, the graph {words[1]}; "
                f"trace with the group_norm that the plan was made with, or make a new plan."
            )
        if not kept:
            raise PlanMismatchError(f"the plan empties group {group!r}; keep at least one of {widths[group]}.")
        if list(kept) != sorted(set(kept)) or kept[0] < 0 or kept[-1] >= widths[group]:
            raise PlanMismatchError(
                f"the kept units of group {group!r} must be ascending indices below {widths[group]}; "
                f"got {list(kept)[:8]}."
            )
