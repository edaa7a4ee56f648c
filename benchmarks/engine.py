"""Speed, memory and reach of the engine over the zoo, beside Torch-Pruning as shipped: writes one JSON record.

    python benchmarks/engine.py benchmarks/records/engine.json [NAME ...]
    python benchmarks/engine.py --readme                                     # the README's table, from that record

Every network has a process of its own, in which both engines work on it in turn. Networks of packages that are not
installed are named and left out. The record is written after every network; a second call with the same file goes on
with those that are not in it. The tables go to standard output, as Markdown, under what their columns mean. Run it when
nothing else runs.
"""

import argparse
import copy
import json
import math
import resource
import statistics
import subprocess
import sys
import time
import warnings
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

import secateur as sc
from secateur.cost.macs import count_macs, graph_macs
from secateur.graph.records import Role
from secateur.prune.surgery import remove_with_proof
from secateur.records import read_record, write_record
from secateur.store.runs import surroundings

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from measuring import peak_mib, reset_peak_mib
from readme import put_table

from masking import halving, scramble_, silenced
from zoo import ALL
from zoo_member import Shipped
from zoo_nnunet import nnunet

_LARGE = (32, 64, 128, 256, 320, 320)
_NNUNET_L = {"features": _LARGE, "side": 64, "blocks": (1, 3, 4, 6, 6, 6)}
ZOO: dict[str, Shipped] = {
    **ALL,
    "nnunet_plain_3d_full": Shipped(
        nnunet("PlainConvUNet", 3, features=_LARGE, side=64), 1.0, needs="dynamic_network_architectures"
    ),
    "nnunet_residual_3d_full": Shipped(
        nnunet("ResidualEncoderUNet", 3, **_NNUNET_L), 1.0, needs="dynamic_network_architectures"
    ),
}
RECORD = Path(__file__).parent / "records" / "engine.json"
_DEPTHS = (50, 100, 200, 400, 800, 1600)
_KEEP_RATIO = 0.5
_LIMIT_S = 180.0  # for both engines on one network
_LIMIT_GIB = 16  # of address space, likewise
_EXACT = 1e-9  # largest difference, relative to the largest output, in float64
_LARGE_MILLIONS = 10  # of parameters

COLUMNS = {
    "M params": "millions of parameters",
    "s": "seconds from the network to the proved smaller one, for a plan that keeps half of the multiply-adds over all "
    "groups: `trace`, L2 norms, `allocate` and `remove`, on an example of the size that the zoo gives",
    "trace": "of these, `trace`: two captures (train and eval mode), groups, smallest patch, a trial of every group",
    "remove": "of these, `remove`: surgery, and its proof in float64 with random and real weights in both modes",
    "MACs kept": "share of the multiply-adds left when every group loses every other unit; a quarter is ideal",
    "removable": "share of the written channels that can be removed; every other one has a reason",
    "exact": "whether eval-mode outputs in float64, on the whole example, equal those of the dense network whose "
    f"consumers ignore what was removed, within {_EXACT:g} of the largest; measured here, not by the proof",
    "peak MiB": "highest resident memory of the process during these seconds less that before them (VmHWM, VmRSS), "
    "with what is handed back; a first small network goes through all of it before, so that torch is loaded",
    "/ model": f"the same over parameters and buffers, for {_LARGE_MILLIONS} M parameters and more; below, libraries "
    "and activations outweigh them",
    "TP s": "seconds of Torch-Pruning's graph and its removal of half of the channels by L2 norm over all layers, in "
    "float32; nothing is proved",
    "TP MACs kept, TP exact": "as above, for its removal of half of every layer; it is told the layers of the outputs",
}


def member(name):
    """Both engines on one network; a line of JSON after each, so that what is done survives the other's end."""
    network = ZOO[name].network
    torch.manual_seed(0)
    model = network.build()
    scramble_(model, seed=0)
    example = network.inputs()
    _warm_up()
    print(json.dumps({"params": sum(p.numel() for p in model.parameters()), "macs": count_macs(model, example)}))
    graph = None
    for key, work in (("secateur", ours), ("torch_pruning", theirs)):
        try:
            found, graph = work(model, example, graph)
            result = {"runs": True, **found}
        except Exception as error:  # whatever a library raises is a result here
            first = next(iter(str(error).strip().splitlines()), "")
            result = {"runs": False, "failure": f"{type(error).__name__}: {first[:200]}"}
        print(json.dumps({key: result}), flush=True)


def _warm_up():
    """The first export of a process imports much of torch: seconds and memory that no network is to blame for."""
    chain, x = Chain(4), torch.zeros(1, 3, 16, 16)
    graph = sc.trace(chain, x)
    sc.remove(chain, graph, halving(graph))


def ours(model, example, _):
    """Trace, and meet half of the MACs over all groups at once, timed; then halve every group, for what is left."""
    before, model_mib = reset_peak_mib(), _size_mib(model)
    clock = Clock()
    graph = sc.trace(model, example)
    seconds = {"trace_s": clock.lap()}
    plan = sc.allocate(graph, sc.L2Norm().score(model, graph), sc.MacsBudget(_KEEP_RATIO))
    seconds["allocate_s"] = clock.lap()
    sc.remove(model, graph, plan)
    seconds["remove_s"] = clock.lap()
    added_mib = peak_mib() - before
    uniform = halving(graph)
    small, proof = remove_with_proof(model, graph, uniform)
    free = sum(
        len(piece.positions) * piece.channels for g in graph.groups for piece in g.slices if piece.role is Role.WRITE
    )
    difference = _difference(silenced(model, graph, uniform), small, example)
    return {
        **seconds,
        "total_s": sum(seconds.values()),
        "macs_kept": graph_macs(graph.keep(uniform.kept)) / graph_macs(graph),
        "removable": free / (free + sum(pin.channels for pin in graph.pinned)),
        "max_rel_diff": difference,
        "exact": difference < _EXACT,
        "proof_max_rel_diff": proof.max_rel_diff,
        "untested_reads": len(proof.untested),
        "model_mib": model_mib,
        "peak_mib": added_mib,
        "peak_over_model": added_mib / model_mib,
    }, graph


def theirs(model, example, graph):
    """Torch-Pruning: half of every layer, and half over all layers at once; the layers of the outputs are named to it.

    How exactness is found: a removed element is known from the gradient, which is cut along with its parameter and
    holds the numbers of the elements. A copy of the dense network in which those are zero must give the same outputs.
    """
    import torch_pruning

    heads = {pin.module for pin in graph.pinned if pin.reason.startswith("network output")} if graph else set()
    seconds, smaller = {}, {}
    for kind in ("uniform", "global"):
        twin = copy.deepcopy(model).eval()
        for parameter in twin.parameters():
            parameter.grad = torch.arange(parameter.numel()).reshape(parameter.shape).to(parameter)
        clock = Clock()
        pruner = torch_pruning.pruner.MagnitudePruner(
            twin,
            example,
            importance=torch_pruning.importance.MagnitudeImportance(p=2),
            global_pruning=kind == "global",
            pruning_ratio=0.5,
            ignored_layers=[module for name, module in twin.named_modules() if name in heads],
            in_channel_groups={},
            out_channel_groups={},
            num_heads={},
            channel_groups={},
        )
        pruner.step()
        seconds[f"{kind}_s"] = clock.lap()
        smaller[kind] = twin
    small = smaller["uniform"]
    difference = _difference(_zeroed(model, small), small, example)
    return {
        **seconds,
        "macs_kept": count_macs(small, example) / count_macs(model, example),
        "max_rel_diff": difference,
        "exact": difference < _EXACT,
    }, graph


def _zeroed(model, small):
    """``model`` without the elements that the gradients in ``small`` do not name."""
    twin = copy.deepcopy(model)
    left = dict(small.named_parameters())
    with torch.no_grad():
        for name, parameter in twin.named_parameters():
            keep = torch.zeros(parameter.numel(), dtype=torch.bool)
            keep[left[name].grad.long().flatten()] = True
            parameter.mul_(keep.reshape(parameter.shape))
    return twin


def _difference(first, second, example):
    """Largest difference of any output in eval mode and float64, relative to the largest value of that output."""
    found = []
    for model in (first, second):
        with torch.no_grad():
            leaves = pytree.tree_leaves(copy.deepcopy(model).double().eval()(*(x.double() for x in example)))
        found.append([leaf for leaf in leaves if isinstance(leaf, Tensor)])
    if [leaf.shape for leaf in found[0]] != [leaf.shape for leaf in found[1]]:
        raise RuntimeError("the outputs have other shapes")
    pairs = zip(*found, strict=True)
    return max(float((a - b).abs().max() / a.abs().max().clamp_min(1e-300)) for a, b in pairs)


def depth(count):
    """Seconds for ``count`` convolutions, all but two with a norm, two in each residual block."""
    torch.manual_seed(0)
    model = Chain(count)
    scramble_(model, seed=0)
    _warm_up()
    clock = Clock()
    graph = sc.trace(model, torch.zeros(1, 3, 16, 16))
    seconds = {"trace_s": clock.lap()}
    sc.allocate(graph, sc.L2Norm().score(model, graph), sc.MacsBudget(_KEEP_RATIO))
    seconds["allocate_s"] = clock.lap()
    sc.remove(model, graph, halving(graph))  # a global plan leaves single channels, whose noise deep chains magnify
    seconds["remove_s"] = clock.lap()
    print(json.dumps({"convolutions": count, **seconds, "total_s": sum(seconds.values())}))


class Chain(nn.Module):
    """Residual blocks of two convolutions: one group over all sums, and one inside every block.

    Without the sums, or with norms that do not norm in eval mode, rounding grows exponentially with depth, until
    nothing can be proved.
    """

    def __init__(self, count: int) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 1, 1)
        self.blocks = nn.ModuleList([_block() for _ in range((count - 2) // 2)])

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for block in self.blocks:
            x = x + block(x)
        return self.last(x)


def _block() -> nn.Sequential:
    convolutions = [nn.Conv2d(8, 8, 3, padding=1) for _ in range(2)]
    norms = [nn.InstanceNorm2d(8, affine=True) for _ in range(2)]
    return nn.Sequential(convolutions[0], norms[0], nn.ReLU(), convolutions[1], norms[1])


class Clock:
    """Seconds since the last lap."""

    def __init__(self) -> None:
        self._last = time.perf_counter()

    def lap(self) -> float:
        now = time.perf_counter()
        passed, self._last = now - self._last, now
        return passed


def _size_mib(model):
    tensors = [*model.parameters(), *model.buffers()]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors) / 2**20


def in_a_process(*arguments):
    """What a run of this file in a process of its own prints, as one dictionary; ``stopped`` where time ran out."""
    command = [sys.executable, __file__, *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_LIMIT_S)
        text, stopped = done.stdout, done.stderr.strip()[-200:] if done.returncode else ""
    except subprocess.TimeoutExpired as late:
        text, stopped = (late.stdout or b"").decode(), f"over {_LIMIT_S:.0f} s"
    found = {}
    for line in text.splitlines():
        found |= json.loads(line)
    return {**found, **({"stopped": stopped} if stopped else {}), "git_revision": surroundings()["git_revision"]}


def totals(members):
    """What the page says first: how many run and are exact, and the median seconds of either engine."""
    found = {}
    for engine, seconds in (("secateur", "total_s"), ("torch_pruning", "global_s")):
        results = [member.get(engine, {"runs": False}) for member in members.values()]
        ran = [result for result in results if result["runs"]]
        found[engine] = {
            "members": len(results),
            "run": len(ran),
            "exact": sum(result["exact"] for result in ran),
            "median_s": statistics.median(result[seconds] for result in ran) if ran else None,
            "worst_s": max((result[seconds] for result in ran), default=None),
        }
    both = [m for m in members.values() if all(m.get(engine, {}).get("runs") for engine in found)]
    if both:
        found["median_s_where_both_run"] = {
            "members": len(both),
            "secateur": statistics.median(member["secateur"]["total_s"] for member in both),
            "torch_pruning": statistics.median(member["torch_pruning"]["global_s"] for member in both),
        }
    ours = [member for member in members.values() if member.get("secateur", {}).get("runs")]
    large = [member for member in ours if member["params"] >= _LARGE_MILLIONS * 1e6]
    ratios = [member["secateur"]["peak_over_model"] for member in large]
    small = [member["secateur"]["peak_mib"] for member in ours if member not in large]
    found["peak"] = {
        "large_members": len(large),
        "large_median_over_model": statistics.median(ratios) if ratios else None,
        "large_worst_over_model": max(ratios, default=None),
        "small_members": len(small),
        "small_median_mib": statistics.median(small) if small else None,
        "small_worst_mib": max(small, default=None),
    }
    return found


def readme_table(record):
    """Markdown: how many networks either engine serves as shipped, and at what cost."""
    totals = record["totals"]
    ours, theirs = totals["secateur"], totals["torch_pruning"]
    both = totals["median_s_where_both_run"]
    rows = [
        f"| of {ours['members']} networks as shipped | secateur | Torch-Pruning {record['torch_pruning']} |",
        "| --- | --- | --- |",
        f"| every group halved, and it runs | {ours['run']} | {theirs['run']} |",
        f"| and gives the outputs of the masked network | {ours['exact']} | {theirs['exact']} |",
        f"| median seconds, of the {both['members']} that both run | {both['secateur']:.1f}, proof included "
        f"| {both['torch_pruning']:.2f}, without proof |",
        f"| median and longest seconds, of all that run | {ours['median_s']:.1f}, {ours['worst_s']:.0f} "
        f"| {theirs['median_s']:.2f}, {theirs['worst_s']:.2f} |",
    ]
    return "\n".join(rows)


def table(members):
    """Markdown: one row for each network; seconds are for one global plan, from the trace to the proof."""
    lines = [
        "| network | M params | s | trace | remove | MACs kept | removable | exact | peak MiB | / model "
        "| TP s | TP MACs kept | TP exact |",
        "| --- " * 13 + "|",
    ]
    for name, found in members.items():
        own, other = (found.get(engine, {"runs": False}) for engine in ("secateur", "torch_pruning"))
        cells = [name, f"{found['params'] / 1e6:.2f}"] if "params" in found else [name, ""]
        if own["runs"]:
            cells += [f"{own[key]:.1f}" for key in ("total_s", "trace_s", "remove_s")]
            cells += [f"{own['macs_kept']:.2f}", f"{own['removable']:.0%}", _verdict(own), f"{own['peak_mib']:.0f}"]
            large = found["params"] >= _LARGE_MILLIONS * 1e6
            cells += [f"{own['peak_over_model']:.1f}" if large else ""]
        else:
            cells += ["", "", "", "", "", own.get("failure", found.get("stopped", "")), "", ""]
        if other["runs"]:
            cells += [f"{other['global_s']:.2f}", f"{other['macs_kept']:.2f}", _verdict(other)]
        else:
            cells += ["", "", other.get("failure", found.get("stopped", ""))]
        lines.append("| " + " | ".join(cell.replace("|", "/") for cell in cells) + " |")
    return "\n".join(lines)


def _verdict(result):
    if result["exact"]:
        return "yes"
    return f"off by {result['max_rel_diff']:.1g}" if math.isfinite(result["max_rel_diff"]) else "not finite"


def curve(depths):
    """Markdown: seconds over the number of convolutions, from the network to the proved smaller one."""
    lines = ["| convolutions | trace s | remove s | s | s per convolution |", "| --- " * 5 + "|"]
    for point in depths:
        if "total_s" not in point:
            lines.append(f"| {point['convolutions']} | | | {point['stopped'].replace('|', '/')} | |")
            continue
        count, total = point["convolutions"], point["total_s"]
        lines.append(
            f"| {count} | {point['trace_s']:.2f} | {point['remove_s']:.2f} | {total:.2f} | {total / count:.4f} |"
        )
    return "\n".join(lines)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    work = parser.add_mutually_exclusive_group(required=True)
    work.add_argument("record", nargs="?", type=Path, help="JSON file to write, or to go on with")
    work.add_argument("--readme", action="store_true", help="put the table of the kept record into the README")
    work.add_argument("--member", choices=ZOO, help=argparse.SUPPRESS)  # a process of its own
    work.add_argument("--depth", type=int, help=argparse.SUPPRESS)  # likewise
    parser.add_argument("names", nargs="*", metavar="NAME", help="networks of the zoo; all by default")
    given = parser.parse_args()
    unknown = set(given.names) - set(ZOO)
    if unknown:
        parser.error(f"no network is called {', '.join(sorted(unknown))}; the zoo has {', '.join(ZOO)}")
    return given


def main():
    given = arguments()
    warnings.simplefilter("ignore")
    torch.set_num_threads(2)
    if given.member is not None or given.depth is not None:
        resource.setrlimit(resource.RLIMIT_AS, (_LIMIT_GIB * 2**30, _LIMIT_GIB * 2**30))
        if given.member is not None:
            member(given.member)
        else:
            depth(given.depth)
        return
    if given.readme:
        put_table("engine", "engine.py", readme_table(read_record(RECORD)))
        return
    path = given.record
    made = read_record(path) if path.exists() else {"members": {}, "depths": []}
    members, depths = made["members"], made["depths"]
    head = {
        **surroundings(),
        "torch_pruning": version("torch-pruning"),
        "limit_s": _LIMIT_S,
        "limit_gib": _LIMIT_GIB,
        "columns": COLUMNS,
    }

    def keep():
        record = {**head, "totals": totals(members), "members": members, "depths": depths}
        write_record(path, record)
        return record

    for name in given.names or ZOO:
        if name not in members:
            members[name] = in_a_process("--member", name)
            print(name, json.dumps(members[name]), file=sys.stderr, flush=True)
            keep()
    for count in () if given.names else _DEPTHS[len(depths) :]:
        depths.append({"convolutions": count, **in_a_process("--depth", str(count))})
        keep()
    record = keep()
    meanings = "\n".join(f"- **{column}**: {meaning}." for column, meaning in COLUMNS.items())
    print(f"{meanings}\n\n{table(members)}\n\n{curve(depths)}\n\n{json.dumps(record['totals'], indent=1)}")


if __name__ == "__main__":
    main()
