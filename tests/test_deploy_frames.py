"""Frames per second: steps, turns and medians on a clock of our own; then the whole record on real runtimes."""

import json
from copy import deepcopy
from datetime import datetime

import numpy as np
import pytest
import torch
from torch import nn

from secateur.deploy import frames as timed_frames
from secateur.deploy import timing
from secateur.deploy.extra import import_extra
from secateur.deploy.frames import interleave_frames, time_frames
from secateur.deploy.timing import LEAST_ROUNDS, WARMUP_ROUNDS, BenchRecipe, NamedModel, time_models
from secateur.errors import InputError

SHAPE = (6, 8)


class Stage:
    """Prepare and overlay that note what they get and pass milliseconds of their own on a clock of our own."""

    def __init__(self, *, prepare_ms=2, overlay_ms=4):
        self.now = 0
        self.log = []
        self.prepare_ms, self.overlay_ms = prepare_ms, overlay_ms

    def clock(self):
        return self.now

    def prepare(self, frame):
        self.now += int(self.prepare_ms * 1e6)
        return np.full((1, 3, 4, 4), frame[0, 0, 0], np.float32)

    def overlay(self, frame, logits):
        self.now += int(self.overlay_ms * 1e6)
        self.log.append((int(frame[0, 0, 0]), float(logits[0, 0, 0, 0])))
        return frame

    def runner(self, name, milliseconds):
        return Fake(self, name, milliseconds)

    def __call__(self, runners, frames, *, seconds=0.0, **options):
        return interleave_frames(
            runners, frames, prepare=self.prepare, overlay=self.overlay, seconds=seconds, clock=self.clock, **options
        )


class Fake:
    """A runner whose logits tell its name (a number) and its input; takes the milliseconds given, the last for ever."""

    size_bytes = 7

    def __init__(self, stage, name, milliseconds):
        self.stage, self.name, self.milliseconds = stage, name, list(milliseconds)

    def run(self, images):
        self.stage.now += int(1e6 * (self.milliseconds.pop(0) if len(self.milliseconds) > 1 else self.milliseconds[0]))
        return images + self.name / 10


def frames_of(*values, shape=SHAPE):
    return [np.full((*shape, 3), value, np.uint8) for value in values]


def test_all_networks_see_a_frame_before_the_next_and_the_first_one_changes():
    stage = Stage()
    stage([stage.runner(name, [1]) for name in (1, 2, 3)], frames_of(10, 20))
    frames = [frame for frame, _ in stage.log]
    assert frames == [10 if number // 3 % 2 == 0 else 20 for number in range(WARMUP_ROUNDS * 3)] + [
        10 if number // 3 % 2 == 0 else 20 for number in range(LEAST_ROUNDS * 3)
    ]
    names = [round(10 * (logits - frame)) for frame, logits in stage.log][WARMUP_ROUNDS * 3 :]
    assert names == ([1, 2, 3, 2, 3, 1, 3, 1, 2] * LEAST_ROUNDS)[: LEAST_ROUNDS * 3]


def test_each_step_is_timed_alone_and_warm_up_is_left_out():
    stage = Stage()
    ramp = list(range(1, LEAST_ROUNDS + 1))
    slow_start = [500] * WARMUP_ROUNDS
    nanoseconds = stage(
        [stage.runner(1, [*slow_start, *ramp]), stage.runner(2, [*slow_start, 3])], frames_of(*range(10))
    )
    expected = [[[2, first, 4], [2, 3, 4]] for first in ramp]
    np.testing.assert_array_equal(nanoseconds, 1_000_000 * np.array(expected))


def test_rounds_fill_the_time_and_show_every_frame():
    stage = Stage()
    shares = []
    nanoseconds = stage(
        [stage.runner(1, [30]), stage.runner(2, [10])], frames_of(1), seconds=2.6, progress=shares.append
    )
    assert nanoseconds.shape == (50, 2, 3)  # 52 ms a round, warm-up not counted
    assert shares == pytest.approx([number / 50 for number in range(1, 51)])
    stage = Stage()
    assert len(stage([stage.runner(1, [1])], frames_of(*range(70)))) == 70
    assert {frame for frame, _ in stage.log[WARMUP_ROUNDS:]} == set(range(70))


def test_medians_and_frames_per_second(monkeypatch):
    """Network 1 to 20 ms, median 10.5, in each frame with 2 and 4 ms around it: 16.5 ms are 60.6 frames a second."""
    stage = Stage()
    warm = [500] * WARMUP_ROUNDS
    runners = iter([stage.runner(1, [*warm, *range(20, 0, -1)]), stage.runner(2, [*warm, 2])])
    monkeypatch.setattr(timing, "open_runner", lambda *_, **__: next(runners))
    defaults = {**interleave_frames.__kwdefaults__, "clock": stage.clock}
    monkeypatch.setattr(interleave_frames, "__kwdefaults__", defaults)
    entries = [NamedModel("dense", nn.Identity(), 100, 900), NamedModel("small", nn.Identity(), 10, 90)]
    recipe = BenchRecipe(targets=("torch",), threads=1, seconds=0, frame_shape=SHAPE)
    record = time_frames(entries, recipe, frames=frames_of(1, 2, 3), prepare=stage.prepare, overlay=stage.overlay)
    dense, small = record["rows"]
    assert dense["ms"] == pytest.approx({"prepare": 2, "network": 10.5, "overlay": 4, "total": 16.5})
    assert dense["fps"] == pytest.approx(1000 / 16.5)
    assert small["ms"] == pytest.approx({"prepare": 2, "network": 2, "overlay": 4, "total": 8})
    assert small["fps"] == pytest.approx(125)
    assert (dense["name"], small["name"]) == ("dense", "small")
    assert dense["iterations"] == LEAST_ROUNDS


def test_total_is_the_median_of_sums():
    """Where the steps are slow on different frames, the medians of the steps do not add up to it."""
    nanoseconds = 1_000_000 * np.array([[9, 1, 1], [1, 9, 1], [1, 1, 9]])
    row = timed_frames._row("a", BenchRecipe().targets[0], nanoseconds)
    assert row["ms"] == {"prepare": 1, "network": 1, "overlay": 1, "total": 11}


@pytest.fixture(scope="module")
def networks():
    torch.manual_seed(0)

    def network(width):
        return nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, 1, 3, padding=1))

    return [NamedModel(f"width {width}", network(width), width * 37 + 1, width * 36 * 64**2) for width in (64, 8)]


def shrink(frame):
    """Every second row and column of a frame as a network's input."""
    return np.ascontiguousarray(frame[None, ::2, ::2].transpose(0, 3, 1, 2) / np.float32(255))


def test_the_record_of_real_runtimes(networks):
    pytest.importorskip("onnx")
    reports, seen, threads = [], [], set()

    def overlay(frame, logits):
        threads.add(torch.get_num_threads())
        seen.append(logits.copy())
        return frame

    frames = list(np.random.default_rng(0).integers(0, 256, (2, 128, 128, 3), dtype=np.uint8))
    recipe = BenchRecipe(threads=1, seconds=0, frame_shape=(128, 128))
    before = torch.get_num_threads()
    torch.set_num_threads(before + 1)
    try:
        record = time_frames(
            networks,
            recipe,
            frames=frames,
            prepare=shrink,
            overlay=overlay,
            progress=lambda target, share: reports.append((str(target), share)),
        )
        assert (threads, torch.get_num_threads()) == ({1}, before + 1)
    finally:
        torch.set_num_threads(before)
    json.dumps(record, allow_nan=False)
    assert datetime.fromisoformat(record["created"]).tzinfo is not None
    assert (record["frame_shape"], record["network_side"]) == ([128, 128], 64)
    assert (record["frames"], record["threads"]) == (2, 1)
    assert set(record["versions"]) == {"torch", "onnxruntime", "openvino"}
    runtimes = ("torch", "onnxruntime", "openvino")
    assert [(row["runtime"], row["name"]) for row in record["rows"]] == [
        (runtime, entry.name) for runtime in runtimes for entry in networks
    ]
    for row in record["rows"]:
        assert row["precision"] == "float32"
        assert row["ms"]["network"] < row["ms"]["total"]
        assert min(row["ms"].values()) > 0
        assert row["fps"] == pytest.approx(1000 / row["ms"]["total"])
    assert len(reports) == 3 * LEAST_ROUNDS
    assert reports[-1] == ("openvino:float32", 1)
    with torch.no_grad():  # the last warm-up round shows the first frame
        last = networks[1].model(torch.from_numpy(shrink(frames[0]))).numpy()
    np.testing.assert_allclose(seen[2 * WARMUP_ROUNDS - 1], last, atol=1e-5)


@pytest.mark.parametrize("target", ["torch:bfloat16", "openvino:bfloat16"])
def test_networks_are_timed_in_bfloat16(networks, target):
    """Both records say so, and the logits that the overlay gets have its 8 significant bits, no more and no fewer."""
    pytest.importorskip("onnx")
    can = import_extra("openvino").Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if target.startswith("openvino") and "BF16" not in can:
        pytest.skip("OpenVINO computes in bfloat16 only on a CPU that does, and this one does not")
    recipe = BenchRecipe(targets=(target,), threads=1, seconds=0, frame_shape=(128, 128))

    (bench,) = time_models(networks, recipe, input_shape=(1, 3, 64, 64))["benches"]
    assert f"{bench['runtime']}:{bench['precision']}" == target
    assert [model["name"] for model in bench["models"]] == [entry.name for entry in networks]

    seen = []
    (image,) = frames = list(np.random.default_rng(0).integers(0, 256, (1, 128, 128, 3), dtype=np.uint8))
    record = time_frames(
        networks, recipe, frames=frames, prepare=shrink, overlay=lambda frame, logits: seen.append(logits.copy())
    )
    assert [f"{row['runtime']}:{row['precision']}" for row in record["rows"]] == [target, target]
    with torch.no_grad():
        exact = deepcopy(networks[0].model).double()(torch.from_numpy(shrink(image)).double()).numpy()
    assert seen[0].dtype == np.float32
    assert 1e-4 < np.abs(seen[0] - exact).max() / np.abs(exact).max() < 1e-1


def test_frames_of_another_shape_and_none_are_refused(networks):
    recipe = BenchRecipe(targets=("torch",), seconds=0)
    for frames, shapes in (([], r"\[\]"), (frames_of(1), r"\[\(6, 8, 3\)\]")):
        with pytest.raises(
            InputError, match=rf"shapes {shapes} .* frame_shape is \(1024, 1280\); .* \(1024, 1280, 3\)"
        ):
            time_frames(networks, recipe, frames=frames, prepare=shrink, overlay=lambda frame, logits: frame)


def test_networks_need_names_of_their_own(networks):
    recipe = BenchRecipe(targets=("torch",), seconds=0, frame_shape=SHAPE)
    with pytest.raises(InputError, match="'width 64', 'width 64'"):
        time_frames(networks[:1] * 2, recipe, frames=frames_of(1), prepare=shrink, overlay=lambda frame, logits: frame)


@pytest.mark.parametrize("shape", [(0, 1280), (1024,), (1024, 1280, 3)])
def test_a_wrong_frame_shape_is_refused(shape):
    with pytest.raises(ValueError, match="frame_shape"):
        BenchRecipe(frame_shape=shape)
