"""Exported networks: what is in the files, and that they say what PyTorch says on both shipping runtimes."""

import copy
import logging

import numpy as np
import pytest
import torch
from torch import nn

from secateur.deploy import parity
from secateur.deploy.extra import import_extra
from secateur.deploy.onnx import OPSET, Batch, ExportedFile, export_onnx, save_onnx, trace_onnx
from secateur.deploy.parity import RELATIVE_TOLERANCE, check_parity, require_parity
from secateur.deploy.runtimes import OnnxRuntimeRunner, Target
from secateur.errors import GraphError, InputError, ParityError

onnx = pytest.importorskip("onnx")
onnx_numpy = pytest.importorskip("onnx.numpy_helper")


def tiny(classes=1):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.InstanceNorm2d(8, affine=True),
        nn.ReLU(inplace=True),
        nn.Conv2d(8, classes, 1),
    )


def images(count=4, *, side=16):
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(1, 3, side, side, generator=generator) for _ in range(count)]


def dyn_unet(**settings):
    from monai.networks.nets import DynUNet

    kernels, strides = [3, 3, 3, 3], [1, 2, 2, 2]
    return DynUNet(2, 3, 1, kernels, strides, strides[1:], filters=[4, 8, 8, 8], **settings)


def basic_unet():
    from monai.networks.nets import BasicUNet

    return BasicUNet(2, 3, 1, features=(4, 4, 8, 8, 8, 4))


def residual_unet():
    from monai.networks.nets import UNet

    return UNet(2, 3, 1, channels=(4, 8, 8), strides=(2, 2), num_res_units=2)


def attention_unet():
    from monai.networks.nets import AttentionUnet

    return AttentionUnet(2, 3, 1, channels=(4, 8, 8), strides=(2, 2))


def flexible_unet():
    from monai.networks.nets import FlexibleUNet

    return FlexibleUNet(3, 1, "efficientnet-b0", pretrained=False, spatial_dims=2, decoder_channels=(16, 8, 8, 8, 8))


NETWORKS = {
    "BasicUNet": basic_unet,
    "UNet with residual units": residual_unet,
    "DynUNet": dyn_unet,
    "DynUNet residual": lambda: dyn_unet(res_block=True),
    "DynUNet deep supervision": lambda: dyn_unet(deep_supervision=True, deep_supr_num=2),
    "AttentionUnet": attention_unet,
    "FlexibleUNet": flexible_unet,
}


FAST = ("UNet with residual units", "DynUNet deep supervision")  # an export takes seconds


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in NETWORKS]
)
def test_monai_networks_pass_on_both_runtimes_and_stay_as_they_were(name, tmp_path, capfd, caplog):
    torch.manual_seed(0)
    model = NETWORKS[name]()
    cases = images(2, side=64 if name == "FlexibleUNet" else 32)
    twin = copy.deepcopy(model)
    train_outputs(model, cases).sum().backward()  # leaves gradients and stored heads behind
    train_outputs(twin, cases)

    files = export_onnx(model, cases[0], tmp_path)
    assert capfd.readouterr() == ("", "")
    assert not [entry for entry in caplog.records if entry.levelno >= logging.WARNING]

    record = check_parity(model, files, cases, threads=1)
    assert record["passed"]
    assert len(record["runtimes"]) == 4
    assert all(0 < row["max_abs_diff"] < row["tolerance"] / 100 for row in record["runtimes"])
    require_parity(record)

    assert all(module.training for module in model.modules())
    assert torch.equal(train_outputs(model, cases), train_outputs(twin, cases))


def train_outputs(model, cases):
    """Every head in train mode, with the same drop-out each time."""
    torch.manual_seed(2)
    return model(torch.cat(cases))


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    return export_onnx(tiny(), images()[0], tmp_path_factory.mktemp("export"))


def test_files_hold_their_weights_and_state_shapes_and_opset(exported):
    assert [(file.path.name, file.batch) for file in exported] == [
        ("model.onnx", Batch.FIXED),
        ("model_dynamic.onnx", Batch.DYNAMIC),
    ]
    assert sorted(path.name for path in exported[0].path.parent.iterdir()) == [
        "model.onnx",
        "model_dynamic.onnx",
    ]
    for file, batch in zip(exported, (1, "batch"), strict=True):
        graph = onnx.load(file.path, load_external_data=False)
        assert [(entry.domain, entry.version) for entry in graph.opset_import] == [("", OPSET)]
        assert not any(tensor.external_data for tensor in graph.graph.initializer)
        shapes = {
            value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
            for value in (*graph.graph.input, *graph.graph.output)
        }
        assert shapes == {"image": [batch, 3, 16, 16], "logits": [batch, 1, 16, 16]}
        assert file.size_bytes == file.path.stat().st_size
        assert b"site-packages" not in file.path.read_bytes()


def test_export_is_reproducible(exported, tmp_path):
    again = export_onnx(tiny(), images()[0], tmp_path)
    assert [file.path.read_bytes() for file in again] == [file.path.read_bytes() for file in exported]


def test_a_network_that_cannot_be_exported_leaves_no_file(tmp_path):
    class TwoOutputs(nn.Module):
        def forward(self, image):
            return image, image + 1

    class FixedBatch(nn.Module):
        def forward(self, image):
            return image.reshape(1, 3, 16, 16) if image.shape[0] == 1 else image.reshape(2, 3, 16, 16)

    with pytest.raises(InputError, match="returns 2 tensors in eval mode"):
        export_onnx(TwoOutputs(), images()[0], tmp_path)
    with pytest.raises(GraphError, match="forward fixes the batch to 2"):
        export_onnx(FixedBatch(), images()[0], tmp_path)
    with pytest.raises(GraphError, match=r"at \(1, 4, 16, 16\) .*expected input.* to have 3 channels") as caught:
        export_onnx(tiny(), torch.zeros(1, 4, 16, 16), tmp_path)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_disk_error_leaves_the_old_file(tmp_path):
    class Broken:
        def SerializeToString(self, *, deterministic):  # noqa: N802
            raise OSError("disk full")

    path = tmp_path / "model.onnx"
    path.write_bytes(b"old")
    with pytest.raises(OSError, match="disk full"):
        save_onnx(Broken(), path)
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("model.onnx", b"old")]


def with_changed_weight(file, path, *, factor):
    """A copy of an exported file with one weight of the last convolution multiplied."""
    graph = onnx.load(file.path)
    tensor = next(tensor for tensor in graph.graph.initializer if tensor.name == "3.weight")
    values = onnx_numpy.to_array(tensor).copy()
    values.flat[0] *= factor
    tensor.CopyFrom(onnx_numpy.from_array(values, "3.weight"))
    save_onnx(graph, path)
    return ExportedFile(path, file.batch)


@pytest.mark.parametrize("place", [0, 1])
def test_one_corrupted_weight_is_caught(exported, tmp_path, place):
    broken = with_changed_weight(exported[place], tmp_path / "broken.onnx", factor=1.02)
    record = check_parity(tiny(), [broken], images(), threads=1)
    assert not record["passed"]
    assert [row["passed"] for row in record["runtimes"]] == [False, False]
    with pytest.raises(
        ParityError, match=r"2 of 2 checks .* broken\.onnx on \w+, a logit is off by 0\.\d+ \(at most 0\.0"
    ):
        require_parity(record)


def test_a_runtime_that_computes_in_bfloat16_is_caught(exported, monkeypatch):
    capabilities = import_extra("openvino").Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if "BF16" not in capabilities:
        pytest.skip("this CPU has no bfloat16")
    monkeypatch.setattr(parity, "SHIPPING", (Target.model_validate("openvino:bfloat16"),))
    assert not check_parity(tiny(), exported, images(), threads=1)["passed"]


def test_a_logit_that_is_not_finite_is_caught(exported, tmp_path):
    broken = with_changed_weight(exported[0], tmp_path / "broken.onnx", factor=np.inf)
    record = check_parity(tiny(), [broken], images(), threads=1)
    assert [row["max_abs_diff"] for row in record["runtimes"]] == [None, None]
    with pytest.raises(ParityError, match="a logit is not finite"):
        require_parity(record)


def test_the_record_against_a_plain_computation(exported, tmp_path):
    """A strongly changed network: pixels flip, Dice moves, and every figure is computed again here."""
    broken = with_changed_weight(exported[0], tmp_path / "broken.onnx", factor=-3)
    cases = images(5)
    truths = [np.random.default_rng(place).random((16, 16)) > 0.5 for place in range(5)]
    model = tiny().eval()
    seen = []

    record = check_parity(model, [broken], cases, truths, threads=1, progress=lambda *done: seen.append(done))

    runner = OnnxRuntimeRunner(broken.path, threads=1)
    expected = [model(case).detach().numpy() for case in cases]
    found = [runner.run(case.numpy()) for case in cases]
    flips = sum(((a > 0) != (b > 0)).sum() for a, b in zip(expected, found, strict=True))

    def dice(logits, truth):
        mask = logits[0, 0] > 0
        return 2 * (mask & truth).sum() / (mask.sum() + truth.sum())

    row = record["runtimes"][0]
    assert row["runtime"] == "onnxruntime"
    assert row["precision"] == "float32"
    assert row["max_abs_diff"] == pytest.approx(max(np.abs(np.subtract(expected, found)).flat), rel=1e-4)
    assert row["flipped_pixels"] == flips > 0
    assert row["pixels"] == 5 * 16 * 16
    changes = [abs(dice(b, t) - dice(a, t)) for a, b, t in zip(expected, found, truths, strict=True)]
    assert row["max_dice_diff"] == pytest.approx(max(changes)) != 0
    assert row["tolerance"] == pytest.approx(RELATIVE_TOLERANCE * np.abs(expected).max(), rel=1e-4)
    assert record["cases"] == 5
    assert record["files"] == [{"name": "broken.onnx", "size_bytes": broken.size_bytes, "batch": "fixed"}]
    assert seen == [(1, 2), (2, 2)]

    without_truth = check_parity(model, [broken], cases, threads=1)["runtimes"][0]
    between = [1 - dice(b, a[0, 0] > 0) for a, b in zip(expected, found, strict=True)]
    assert without_truth["max_dice_diff"] == pytest.approx(max(between))


def test_a_task_says_what_decides_a_pixel(tmp_path):
    """Two outputs are not always two classes: here the first decides, and only the second is off."""
    model = tiny(classes=2)
    file = ExportedFile(tmp_path / "model.onnx", Batch.FIXED)
    other = copy.deepcopy(model)
    with torch.no_grad():
        other[3].weight[1] *= -9
    save_onnx(trace_onnx(other, images()[0], Batch.FIXED), file.path)
    as_classes, by_mask = (
        check_parity(model, [file], images(), threads=1, **how)["runtimes"][0]
        for how in ({}, {"labels": lambda output: output[0, 0] > 0})
    )
    assert as_classes["flipped_pixels"] > 0 < as_classes["max_dice_diff"]
    assert by_mask["flipped_pixels"] == 0 == by_mask["max_dice_diff"]
    assert by_mask["pixels"] == as_classes["pixels"]
    assert not by_mask["passed"]


def test_several_classes_are_cut_by_the_largest_logit(tmp_path):
    model = tiny(classes=3)
    file = ExportedFile(tmp_path / "model.onnx", Batch.FIXED)
    other = copy.deepcopy(model)
    with torch.no_grad():
        other[3].weight[0] *= -1
    save_onnx(trace_onnx(other, images()[0], Batch.FIXED), file.path)
    truth = np.random.default_rng(0).integers(3, size=(16, 16))

    row = check_parity(model, [file], images(1), [truth], threads=1)["runtimes"][0]

    before, after = (net.eval()(images()[0])[0].detach().numpy().argmax(axis=0) for net in (model, other))
    assert row["flipped_pixels"] == (before != after).sum() > 0

    def mean_dice(labels):
        pairs = [(labels == k, truth == k) for k in (1, 2)]
        return np.mean([2 * (a & b).sum() / (a.sum() + b.sum()) for a, b in pairs])

    assert row["max_dice_diff"] == pytest.approx(abs(mean_dice(after) - mean_dice(before)))


def test_a_dynamic_file_that_mixes_samples_is_caught(tmp_path):
    """Right at batch 1, wrong at batch 3: the mean over a batch of one is itself."""

    class Mixing(nn.Module):
        def __init__(self, network):
            super().__init__()
            self.network = network

        def forward(self, image):
            return self.network(image).mean(dim=0, keepdim=True) + 0 * image[:, :1]

    model = Mixing(tiny())
    fixed, dynamic = export_onnx(model, images()[0], tmp_path)
    passed = {
        row["file"]: row["passed"] for row in check_parity(model, [fixed, dynamic], images(), threads=1)["runtimes"]
    }
    assert passed == {"model.onnx": True, "model_dynamic.onnx": False}


def test_cases_that_do_not_fit_are_refused(exported):
    with pytest.raises(InputError, match="0 cases"):
        check_parity(tiny(), exported, [], threads=1)
    with pytest.raises(InputError, match=r"\(1, 3, 16, 16\), \(1, 3, 32, 32\)"):
        check_parity(tiny(), exported, [*images(1), *images(1, side=32)], threads=1)
    with pytest.raises(InputError, match=r"2 cases of size \(16, 16\) and 1 targets"):
        check_parity(tiny(), exported, images(2), [np.zeros((16, 16), bool)], threads=1)
    with pytest.raises(InputError, match=r"targets of the sizes \[\(8, 8\)\]"):
        check_parity(tiny(), exported, images(1), [np.zeros((8, 8), bool)], threads=1)
    with pytest.raises(ParityError, match=r"onnxruntime cannot run model\.onnx: .*invalid dimensions for input: image"):
        check_parity(tiny(), exported, images(1, side=32), threads=1)


def test_a_network_with_broken_weights_is_refused(exported):
    model = tiny()
    with torch.no_grad():
        model[3].bias.fill_(float("nan"))
    with pytest.raises(ParityError, match="not finite in PyTorch"):
        check_parity(model, exported, images(1), threads=1)
