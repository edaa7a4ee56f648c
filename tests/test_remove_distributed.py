"""Two processes on the CPU: the same scores and plan from batches of their own, one removal, and training goes on.

Run as a script, this file is one of the two processes.
"""

import copy
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import distributed as dist
from torch import optim
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from masking import halving, plan_of
from networks import ZOO, build, traced
from secateur.errors import EvidenceError, InputError, PlanMismatchError
from secateur.prune.allocate import allocate
from secateur.prune.budget import MacsBudget
from secateur.prune.criteria import CRITERIA
from secateur.prune.evidence import Evidence
from secateur.prune.in_place import remove_

NAME = "concat_skip"  # its norm takes each sample by itself, so that batches may be split
PROCESSES, SAMPLES = 2, 4


def samples(step):
    inputs = ZOO[NAME].inputs(batch=SAMPLES, seed=step, dtype=torch.float64)[0]
    return inputs, inputs.mean(1, keepdim=True).tanh()


def dealt(step, rank, processes):
    """The samples of one process: dealt in turn, as by ``DistributedSampler``."""
    return tuple(tensor[rank::processes] for tensor in samples(step))


def loss(output, target):
    return (output - target).square().flatten(1).mean(1)


def train(wrap, *, rank, processes):
    """Train, score with every criterion, remove, train on, remove once more and train on; return all of it."""
    network, graph = build(NAME).double(), traced(NAME)[1]
    model, optimizer = wrap(network, optim.AdamW(network.parameters(), lr=0.01, amsgrad=True))
    average = AveragedModel(network)
    result = {"losses": []}

    def steps(first):
        for step in range(first, first + 3):
            inputs, target = dealt(step, rank, processes)
            optimizer.zero_grad()
            value = loss(model(inputs), target).mean()
            value.backward()
            optimizer.step()
            average.update_parameters(network)
            result["losses"].append(value.item())

    steps(0)
    evidence = Evidence([dealt(step, rank, processes) for step in (50, 51)], loss)
    scores = {name: make(3).score(network, graph, evidence) for name, make in CRITERIA.items()}
    result["scores"] = {name: dict(values) for name, values in scores.items()}
    result["samples"] = {name: values.samples for name, values in scores.items()}
    plan = allocate(graph, scores["taylor"], MacsBudget(keep_ratio=0.6))
    result["plan"] = plan.to_json()
    graph = remove_(model, graph, plan, optimizer=optimizer, ema=average)
    steps(3)
    remove_(model, graph, halving(graph), optimizer=optimizer, ema=average)
    steps(6)
    result["weights"] = {"network": network.state_dict(), "average": average.state_dict()}
    result["states"] = [optimizer.state[parameter] for parameter in network.parameters()]
    return result


def refusals(rank):
    """What the processes must not be able to do, and how it ends; nobody is left waiting."""
    network, graph = build(NAME).double(), traced(NAME)[1]
    wrapped, before = DistributedDataParallel(network), copy.deepcopy(network.state_dict())
    inputs, target = dealt(0, rank, PROCESSES)
    found = {}

    def attempt(name, error, act):
        try:
            act()
        except error as raised:
            found[name] = str(raised)

    different = plan_of(graph, {"first": (0, 1, 2 + rank)})
    attempt("plans", PlanMismatchError, lambda: remove_(wrapped, graph, different))
    only_one = halving(graph) if rank else plan_of(graph, {})
    attempt("nothing", PlanMismatchError, lambda: remove_(wrapped, graph, only_one))
    optimizer = optim.Adafactor(network.parameters()) if rank else optim.Adam(network.parameters())
    loss(wrapped(inputs), target).mean().backward()
    optimizer.step()
    network.load_state_dict(before)
    attempt("optimizers", InputError, lambda: remove_(wrapped, graph, halving(graph), optimizer=optimizer))
    spoiled = Evidence([(inputs * (float("nan") if rank else 1.0), target)], loss)
    attempt("evidence", EvidenceError, lambda: CRITERIA["taylor"](0).score(network, graph, spoiled))
    group = dist.new_group([0, 1])
    attempt(
        "group",
        InputError,
        lambda: remove_(DistributedDataParallel(network, process_group=group), graph, halving(graph)),
    )
    wrapped.register_comm_hook(None, lambda state, bucket: dist.all_reduce(bucket.buffer(), async_op=True).get_future())
    attempt("hook", InputError, lambda: remove_(wrapped, graph, halving(graph)))
    torch.testing.assert_close(network.state_dict(), before, rtol=0, atol=0)
    return found


def in_ddp(network, optimizer):
    return DistributedDataParallel(network), optimizer


def by_accelerate(network, optimizer):
    from accelerate import Accelerator

    return Accelerator(cpu=True).prepare(network, optimizer)


def process(rank, folder):
    torch.set_num_threads(1)
    store = dist.FileStore(f"{folder}/store", PROCESSES)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=PROCESSES)
    results = {wrap.__name__: train(wrap, rank=rank, processes=PROCESSES) for wrap in (in_ddp, by_accelerate)}
    torch.save({**results, "refusals": refusals(rank)}, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    everywhere = {"WORLD_SIZE": str(PROCESSES), "LOCAL_WORLD_SIZE": str(PROCESSES)}  # what a launcher sets
    everywhere |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0", "OMP_NUM_THREADS": "1"}
    running = [
        subprocess.Popen(
            [sys.executable, __file__, str(rank), str(folder)],
            env={**os.environ, **everywhere, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(PROCESSES)
    ]
    try:
        said = [each.communicate(timeout=600)[0] for each in running]
    finally:
        for each in running:
            each.kill()
    assert [each.returncode for each in running] == [0] * PROCESSES, "\n".join(said)
    return [torch.load(folder / f"{rank}.pt") for rank in range(PROCESSES)]


@pytest.fixture(scope="module")
def alone():
    """The same training in one process, with the whole batches."""
    return train(lambda *given: given, rank=0, processes=1)


@pytest.mark.parametrize("wrap", ["in_ddp", "by_accelerate"])
def test_processes_stay_equal_to_the_last_bit(results, wrap):
    first, second = (result[wrap] for result in results)
    assert first["plan"] == second["plan"]
    for key in ("scores", "samples", "weights", "states"):
        torch.testing.assert_close(first[key], second[key], rtol=0, atol=0)
    assert first["losses"] != second["losses"]  # their batches are their own


@pytest.mark.parametrize("wrap", ["in_ddp", "by_accelerate"])
def test_several_processes_are_one(results, alone, wrap):
    """Scores, plan and weights, through two removals, are those of one process that sees all samples."""
    together = results[0][wrap]
    assert together["samples"] == alone["samples"]
    assert alone["samples"]["taylor"] == 2 * SAMPLES
    for name, values in alone["scores"].items():
        torch.testing.assert_close(together["scores"][name], values, rtol=1e-8, atol=1e-12, msg=f"{name}: {{}}".format)
    assert [group["kept"] for group in together["plan"]["groups"]] == [g["kept"] for g in alone["plan"]["groups"]]
    for key in ("weights", "states"):
        torch.testing.assert_close(together[key], alone[key], rtol=1e-8, atol=1e-10)
    means = [sum(values) / PROCESSES for values in zip(*(result[wrap]["losses"] for result in results), strict=True)]
    torch.testing.assert_close(means, alone["losses"], rtol=1e-9, atol=0)


@pytest.mark.parametrize(
    ("name", "messages"),
    [
        ("plans", ("process 1 of 2 removes other channels", "process 1 of 2 removes other channels")),
        ("nothing", ("process 1 of 2 removes other channels", "process 1 of 2 removes other channels")),
        ("optimizers", ("process 1 of 2: Adafactor keeps 'row_var'", "Adafactor keeps 'row_var'")),
        ("evidence", ("process 1 of 2: the gradient at", "the gradient at the network's output is not finite")),
        ("group", ("a process group other than the default one",) * 2),
        ("hook", ("a communication hook, with which it cannot be rebuilt",) * 2),
    ],
)
def test_what_one_process_must_not_do_ends_in_all(results, name, messages):
    for result, message in zip(results, messages, strict=True):
        assert message in result["refusals"][name]


if __name__ == "__main__":
    process(int(sys.argv[1]), Path(sys.argv[2]))
