"""Runners: precision and threads are what was asked for, and nothing is sent or left changed."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch import nn

from secateur.deploy.extra import import_extra
from secateur.deploy.onnx import export_onnx
from secateur.deploy.runtimes import (
    OnnxRuntimeRunner,
    OpenVinoRunner,
    Precision,
    Runtime,
    Target,
    TorchRunner,
    open_runner,
)
from secateur.errors import InputError

pytest.importorskip("onnx")
openvino = import_extra("openvino")


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1), nn.BatchNorm2d(32)]
    return nn.Sequential(*layers, nn.Conv2d(32, 1, 1))


@pytest.fixture(scope="module")
def file(model, tmp_path_factory):
    return export_onnx(model, torch.zeros(1, 3, 16, 16), tmp_path_factory.mktemp("export"))[0].path


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).standard_normal((1, 3, 16, 16), dtype=np.float32)


@pytest.fixture(scope="module")
def exact(model, image):
    twin = TorchRunner(model, threads=1)._model.double()
    return twin(torch.from_numpy(image).double()).detach().numpy()


def relative_error(found, exact):
    return np.abs(found - exact).max() / np.abs(exact).max()


@pytest.mark.parametrize("runtime", Runtime)
def test_float32_means_float32(runtime, model, file, image, exact):
    runner = open_runner(Target(runtime=runtime), model=model, file=file, threads=1)
    logits = runner.run(image)
    assert logits.dtype == np.float32
    assert logits.shape == (1, 1, 16, 16)
    assert relative_error(logits, exact) < 1e-5


@pytest.mark.parametrize("runtime", [Runtime.TORCH, Runtime.OPENVINO])
def test_bfloat16_means_bfloat16(runtime, model, file, image, exact):
    if runtime is Runtime.OPENVINO and "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this CPU has no bfloat16")
    target = Target(runtime=runtime, precision=Precision.BFLOAT16)
    logits = open_runner(target, model=model, file=file, threads=1).run(image)
    assert logits.dtype == np.float32
    assert 1e-4 < relative_error(logits, exact) < 1e-1  # 8 significant bits


def test_results_stay_valid_after_the_next_run(model, file, image):
    for runtime in Runtime:
        runner = open_runner(Target(runtime=runtime), model=model, file=file, threads=1)
        first = runner.run(image)
        kept = first.copy()
        runner.run(-image)
        assert np.array_equal(first, kept)


def test_torch_runs_on_its_own_copy_with_its_own_threads(image):
    class Spy(nn.Module):
        def forward(self, x):
            seen.append((torch.get_num_threads(), self.training, torch.is_grad_enabled()))
            return x

    seen = []
    spy = Spy().train()
    before = torch.get_num_threads()
    TorchRunner(spy, threads=before + 1).run(image)
    assert seen == [(before + 1, False, False)]
    assert torch.get_num_threads() == before
    assert spy.training


def test_size_counts_every_tensor_once(model, file):
    shared = nn.Sequential(model[0], model[0])
    numbers = 3 * 32 * 9 + 32
    assert TorchRunner(shared, threads=1).size_bytes == 4 * numbers
    assert TorchRunner(shared, precision=Precision.BFLOAT16, threads=1).size_bytes == 2 * numbers
    assert OnnxRuntimeRunner(file, threads=1).size_bytes == file.stat().st_size
    assert OpenVinoRunner(file, threads=1).size_bytes == file.stat().st_size


def test_openvino_says_when_it_has_fewer_threads(file):
    with pytest.raises(InputError, match=r"OpenVINO uses at most \d+ threads on this machine, 5000 were asked"):
        OpenVinoRunner(file, threads=5000)


def test_targets_are_written_short_or_long():
    read = TypeAdapter(tuple[Target, ...]).validate_python
    targets = read(["torch", "openvino:bfloat16", {"runtime": "onnxruntime"}])
    assert [str(target) for target in targets] == [
        "torch:float32",
        "openvino:bfloat16",
        "onnxruntime:float32",
    ]
    assert read([str(target) for target in targets]) == targets
    assert read([target.model_dump(mode="json") for target in targets]) == targets


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tensorrt", "'torch', 'onnxruntime' or 'openvino'"),
        ("torch:int8", "'float32' or 'bfloat16'"),
        ("torch:", "'float32' or 'bfloat16'"),
        (
            "onnxruntime:bfloat16",
            "float32 on a CPU, not in bfloat16; use onnxruntime:float32",
        ),
    ],
)
def test_impossible_targets_are_refused(text, message):
    with pytest.raises(ValidationError, match=message):
        Target.model_validate(text)


def test_a_missing_extra_is_named():
    with pytest.raises(InputError, match=r"'no_such_runtime'.*pip install secateur\[deploy\]"):
        import_extra("no_such_runtime")


def test_openvino_is_imported_without_its_usage_reports(tmp_path):
    """By itself, importing it reports to its makers and writes an identity into the home folder."""
    program = (
        "import sys\n"
        "from secateur.deploy.extra import import_extra\n"
        "import_extra('openvino').Core()\n"
        "assert not [name for name in sys.modules if 'openvino_telemetry' in name], 'loaded'\n"
        "import openvino_telemetry\n"  # still there for others
    )
    subprocess.run([sys.executable, "-c", program], check=True, env={"HOME": str(tmp_path)})
    assert not list(tmp_path.iterdir())


def test_runners_import_no_runtime_before_they_need_it():
    heavy = "onnx onnxruntime openvino monai"
    program = (
        "import sys, secateur.deploy.parity, secateur.deploy.timing\n"
        f"assert not set({heavy!r}.split()) & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
