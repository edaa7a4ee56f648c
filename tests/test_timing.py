"""Latency: turns, percentiles and ratios on a clock of our own; then the whole record on real runtimes."""

import json
from datetime import datetime

import numpy as np
import pytest
import torch
from torch import nn

from secateur.deploy import timing
from secateur.deploy.runtimes import Target
from secateur.deploy.timing import (
    LEAST_ROUNDS,
    WARMUP_ROUNDS,
    BenchRecipe,
    NamedModel,
    interleave,
    time_models,
)
from secateur.errors import InputError


class Clock:
    """Nanoseconds that pass only while a runner runs."""

    def __init__(self):
        self.now = 0

    def __call__(self):
        return self.now


class Fake:
    """A runner that notes its turn and takes the given milliseconds, the last of them for ever."""

    size_bytes = 7

    def __init__(self, name, clock, log, milliseconds):
        self.name, self.clock, self.log, self.milliseconds = name, clock, log, list(milliseconds)

    def run(self, images):
        self.log.append(self.name)
        self.clock.now += int(1e6 * (self.milliseconds.pop(0) if len(self.milliseconds) > 1 else self.milliseconds[0]))
        return images


@pytest.fixture
def clock():
    return Clock()


def fakes(clock, log, **milliseconds):
    return [Fake(name, clock, log, times) for name, times in milliseconds.items()]


def test_networks_take_turns_and_the_first_one_changes(clock):
    log = []
    interleave(fakes(clock, log, a=[1], b=[1], c=[1]), np.zeros(1, np.float32), seconds=0, clock=clock)
    turns = ["".join(log[start : start + 3]) for start in range(0, len(log), 3)]
    assert turns[:WARMUP_ROUNDS] == ["abc"] * WARMUP_ROUNDS
    expected = ["abc", "bca", "cab"] * LEAST_ROUNDS
    assert turns[WARMUP_ROUNDS:] == expected[:LEAST_ROUNDS]


def test_each_run_is_timed_alone_and_warm_up_is_left_out(clock):
    slow_start = [500] * WARMUP_ROUNDS
    ramp = list(range(1, LEAST_ROUNDS + 1))
    runners = fakes(clock, [], a=[*slow_start, *ramp], b=[*slow_start, 3])
    nanoseconds = interleave(runners, np.zeros(1, np.float32), seconds=0, clock=clock)
    assert nanoseconds[:, 0].tolist() == [milliseconds * 1_000_000 for milliseconds in ramp]
    assert nanoseconds[:, 1].tolist() == [3_000_000] * LEAST_ROUNDS


def test_rounds_fill_the_time(clock):
    shares = []
    nanoseconds = interleave(
        fakes(clock, [], a=[30], b=[10]),
        np.zeros(1, np.float32),
        seconds=2,
        clock=clock,
        progress=shares.append,
    )
    assert len(nanoseconds) == 50  # 40 ms a round, warm-up not counted
    assert shares == pytest.approx([round_number / 50 for round_number in range(1, 51)])


def test_percentiles_and_ratios(clock, monkeypatch):
    """1 to 20 ms: by linear interpolation p50 = 10.5, p95 = 19.05, p99 = 19.81."""
    warm = [500] * WARMUP_ROUNDS
    runners = iter(fakes(clock, [], dense=[*warm, *range(20, 0, -1)], small=[*warm, 2.1]))
    monkeypatch.setattr(timing, "open_runner", lambda *_, **__: next(runners))
    monkeypatch.setattr(interleave, "__kwdefaults__", {**interleave.__kwdefaults__, "clock": clock})
    entries = [NamedModel("dense", nn.Identity(), 100, 900), NamedModel("small", nn.Identity(), 10, 90)]

    recipe = BenchRecipe(targets=("torch",), threads=3, seconds=0)
    (bench,) = time_models(entries, recipe, input_shape=(1, 3, 4, 4))["benches"]

    dense, small = bench["models"]
    assert dense["latency_ms"] == pytest.approx({"p50": 10.5, "p95": 19.05, "p99": 19.81})
    assert small["latency_ms"] == pytest.approx({"p50": 2.1, "p95": 2.1, "p99": 2.1})
    assert dense | {"latency_ms": None} == {
        "name": "dense", "params": 100, "macs": 900, "size_bytes": 7, "latency_ms": None,
    }  # fmt: skip
    assert bench["pairs"] == [
        {"dense": "dense", "pruned": "small", "speedup": pytest.approx(5.0), "macs_compression": 10.0}
    ]


@pytest.fixture(scope="module")
def networks():
    torch.manual_seed(0)

    def network(width):
        return nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, 1, 3, padding=1))

    return [NamedModel(f"width {width}", network(width), width * 37 + 1, width * 36 * 64**2) for width in (64, 8, 4)]


def test_the_record_of_real_runtimes(networks):
    pytest.importorskip("onnx")
    reports = []
    recipe = BenchRecipe(threads=1, seconds=0)
    record = time_models(
        networks,
        recipe,
        input_shape=(2, 3, 64, 64),
        progress=lambda target, share: reports.append((target, share)),
    )
    json.dumps(record, allow_nan=False)
    assert datetime.fromisoformat(record["created"]).tzinfo is not None
    assert [bench["runtime"] for bench in record["benches"]] == ["torch", "onnxruntime", "openvino"]
    for bench in record["benches"]:
        assert bench["precision"] == "float32"
        assert bench["threads"] == 1
        assert bench["input_shape"] == [2, 3, 64, 64]
        assert bench["iterations"] == LEAST_ROUNDS
        assert set(bench["versions"]) == {"torch", bench["runtime"]}
        assert [model["name"] for model in bench["models"]] == ["width 64", "width 8", "width 4"]
        for model in bench["models"]:
            assert 0 < model["latency_ms"]["p50"] <= model["latency_ms"]["p95"] <= model["latency_ms"]["p99"]
            assert model["size_bytes"] >= 4 * model["params"]
        assert [(pair["dense"], pair["pruned"]) for pair in bench["pairs"]] == [
            ("width 64", "width 8"),
            ("width 64", "width 4"),
        ]
        dense, *rest = (model["latency_ms"]["p50"] for model in bench["models"])
        assert [pair["speedup"] for pair in bench["pairs"]] == pytest.approx([dense / p50 for p50 in rest])
    assert len(reports) == 3 * LEAST_ROUNDS
    assert [share for target, share in reports if target == Target(runtime="openvino")][-1] == 1


def test_torch_alone_needs_no_export(networks, monkeypatch):
    monkeypatch.setattr(timing, "trace_onnx", None)
    recipe = BenchRecipe(targets=("torch:bfloat16",), threads=1, seconds=0)
    (bench,) = time_models(networks, recipe, input_shape=(1, 3, 16, 16))["benches"]
    assert [model["size_bytes"] for model in bench["models"]] == [2 * entry.params for entry in networks]
    assert bench["precision"] == "bfloat16"


def test_networks_need_names_of_their_own(networks):
    with pytest.raises(InputError, match=r"\[\]"):
        time_models([], BenchRecipe(), input_shape=(1, 3, 16, 16))
    with pytest.raises(InputError, match="'width 64', 'width 64'"):
        time_models(networks[:1] * 2, BenchRecipe(), input_shape=(1, 3, 16, 16))


@pytest.mark.parametrize("settings", [{"threads": 0}, {"seconds": -1}, {"targets": []}, {"iterations": 3}])
def test_a_wrong_recipe_is_refused(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        BenchRecipe(**settings)
