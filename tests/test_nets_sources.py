"""Networks from other tools' folders: nnU-Net's and MONAI's, built here, small, and read back."""

import json
import os
import pickle

import numpy as np
import pytest
import torch
from torch import nn

import secateur as sc
from secateur.errors import InputError, RecordError
from secateur.inspection import inspect
from secateur.nets.bundle import load_bundle
from secateur.nets.checkpoint import put_weights_, read_checkpoint
from secateur.nets.nnunet import load_nnunet
from secateur.opening import open_model
from secateur.without_data import cut_recipe

DATASET = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "liver": 1, "tumour": 2}, "file_ending": ".nii.gz"}
OLD = {  # a configuration in the words of plans before nnU-Net 2.5
    "patch_size": [16, 16], "UNet_class_name": "PlainConvUNet", "UNet_base_num_features": 4,
    "unet_max_num_features": 6, "conv_kernel_sizes": [[3, 3]] * 3, "pool_op_kernel_sizes": [[1, 1], [2, 2], [2, 2]],
    "n_conv_per_stage_encoder": [2, 2, 2], "n_conv_per_stage_decoder": [2, 2],
}  # fmt: skip
NEW = {
    "patch_size": [16, 16],
    "architecture": {
        "network_class_name": "dynamic_network_architectures.architectures.unet.ResidualEncoderUNet",
        "arch_kwargs": {
            "n_stages": 3, "features_per_stage": [4, 8, 8], "conv_op": "torch.nn.modules.conv.Conv2d",
            "kernel_sizes": [[3, 3]] * 3, "strides": [[1, 1], [2, 2], [2, 2]], "n_blocks_per_stage": [1, 1, 1],
            "n_conv_per_stage_decoder": [1, 1], "conv_bias": True,
            "norm_op": "torch.nn.modules.instancenorm.InstanceNorm2d", "norm_op_kwargs": {"eps": 1e-5, "affine": True},
            "dropout_op": None, "dropout_op_kwargs": None, "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    },
}  # fmt: skip


class Net(nn.Module):
    """Takes what nnU-Net hands to every network."""

    def __init__(self, input_channels, num_classes, width, conv_op, dropout_op, deep_supervision):
        super().__init__()
        assert dropout_op is None
        self.first, self.last = conv_op(input_channels, width, 1), conv_op(width, num_classes, 1)
        self.deep_supervision = deep_supervision

    def forward(self, x):
        return self.last(torch.relu(self.first(x)))


PLAIN = {
    "patch_size": [4, 6, 8],
    "architecture": {
        "network_class_name": f"{__name__}.Net",
        "arch_kwargs": {"width": 6, "conv_op": "torch.nn.Conv3d", "dropout_op": None},
        "_kw_requires_import": ["conv_op", "dropout_op"],
    },
}


def write_nnunet(root, configurations, model, *, name="3d_fullres", fold="fold_0", file="checkpoint_final.pth", **more):
    root.mkdir(exist_ok=True)
    (root / "plans.json").write_text(json.dumps({"dataset_name": "D1", "configurations": configurations}))
    (root / "dataset.json").write_text(json.dumps({**DATASET, **more}))
    (root / fold).mkdir(exist_ok=True)
    checkpoint = {
        "network_weights": model.state_dict(),
        "optimizer_state": torch.optim.SGD(model.parameters(), 0.01, momentum=0.9).state_dict(),
        "grad_scaler_state": None,
        "logging": {"train_losses": [np.float32(0.5), np.float64(0.25)], "epoch_start_timestamps": [1.5]},
        "_best_ema": np.float64(0.5),
        "current_epoch": 3,
        "init_args": {"configuration": name, "fold": 0, "dataset_json": DATASET, "device": torch.device("cpu")},
        "trainer_name": "nnUNetTrainer",
        "inference_allowed_mirroring_axes": (0, 1, 2),
    }
    torch.save(checkpoint, root / fold / file)
    return root


def network(channels=1, classes=3, seed=0):
    torch.manual_seed(seed)
    return Net(channels, classes, 6, nn.Conv3d, None, False)


def test_a_trained_nnunet_folder_is_a_model(tmp_path):
    model = network()
    root = write_nnunet(tmp_path / "nnUNetTrainer__nnUNetPlans__3d_fullres", {"3d_fullres": PLAIN}, model)
    trained = load_nnunet(root)
    assert trained.input_shape == (1, 1, 4, 6, 8)
    assert not trained.model.training
    image = torch.randn(trained.input_shape)
    assert torch.equal(trained.model(image), model(image))
    floors = {"pruning.round_to": 1, "pruning.min_channels": 1}
    record = inspect(open_model(str(root)), dry_run=cut_recipe({"pruning.keep_ratio": 0.5, **floors}))
    assert record["input_shape"] == [1, 1, 4, 6, 8]
    assert record["dry_run"]["kept"] == {"first": 3}
    # the spec needs neither folder nor nnU-Net: what is pruned is saved and loaded like any other network
    graph = sc.trace(trained.model, image)
    plan = sc.allocate(graph, sc.L2Norm().score(trained.model, graph), sc.MacsBudget(0.5))
    small = sc.remove(trained.model, graph, plan)
    sc.save(small, tmp_path / "small", spec=trained.spec, plan=plan)
    assert torch.equal(sc.load(tmp_path / "small")(image), small(image))


def test_folds_and_checkpoints_are_chosen_by_their_path(tmp_path):
    root = write_nnunet(tmp_path, {"3d_fullres": PLAIN}, network(seed=0), fold="fold_1")
    write_nnunet(tmp_path, {"3d_fullres": PLAIN}, network(seed=1), fold="fold_1", file="checkpoint_best.pth")
    write_nnunet(tmp_path, {"3d_fullres": PLAIN}, network(seed=2), fold="fold_2")
    for seed, path in enumerate([root, root / "fold_1" / "checkpoint_best.pth", root / "fold_2"]):
        assert torch.equal(open_model(str(path)).model.first.weight, network(seed=seed).first.weight)
    (root / "fold_3").mkdir()
    with pytest.raises(RecordError, match=r"fold_3 has no checkpoint_final\.pth"):
        load_nnunet(root / "fold_3")
    with pytest.raises(InputError, match=r"has no plans\.json"):
        load_nnunet(tmp_path.parent)


@pytest.mark.parametrize(
    ("labels", "previous", "channels", "classes"),
    [
        ({"background": 0, "a": 1, "b": 2}, None, 2, 3),
        ({"background": 0, "a": 1, "ignore": 2}, None, 2, 2),
        ({"background": 0, "whole": [1, 2, 3], "core": [2, 3], "active": 3, "ignore": 4}, None, 2, 3),
        ({"background": 0, "a": 1, "b": 2}, "3d_lowres", 4, 3),
    ],
)
def test_channels_and_classes_follow_the_dataset(tmp_path, labels, previous, channels, classes):
    """Ignored labels, regions and cascades, as nnU-Net counts them; names are inherited."""
    plans = {
        "base": PLAIN,
        "3d_fullres": {"inherits_from": "base", "patch_size": [4, 4, 4], "previous_stage": previous},
    }
    root = write_nnunet(
        tmp_path, plans, network(channels, classes), labels=labels, channel_names={"0": "T1", "1": "T2"}
    )
    assert load_nnunet(root).input_shape == (1, channels, 4, 4, 4)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_wrappers_prefixes_are_taken_off(prefix, tmp_path):
    model = network(seed=1)
    weights = {f"{prefix}{name}": tensor for name, tensor in network(seed=2).state_dict().items()}
    put_weights_(model, weights, tmp_path)
    assert torch.equal(model.first.weight, network(seed=2).first.weight)


def test_an_nnunet_of_other_weights_is_refused(tmp_path):
    root = write_nnunet(tmp_path, {"3d_fullres": PLAIN}, network(classes=5))
    with pytest.raises(RecordError, match=r"are not those of the Net .*last\.weight"):
        load_nnunet(root)
    (root / "plans.json").write_text("{}")
    with pytest.raises(RecordError, match=r"are not those of an nnU-Net \(missing: 'configurations'\)"):
        load_nnunet(root)


@pytest.mark.parametrize(("configuration", "widths"), [(OLD, [4, 6, 6]), (NEW, [4, 8, 8])])
def test_nnunets_own_networks(tmp_path, configuration, widths):
    unet = pytest.importorskip(
        "dynamic_network_architectures.architectures.unet", reason="the extra nnunet is not installed"
    )
    kind = unet.PlainConvUNet if configuration is OLD else unet.ResidualEncoderUNet
    depth = {"n_conv_per_stage": [2, 2, 2], "n_conv_per_stage_decoder": [2, 2]} if configuration is OLD else {
        "n_blocks_per_stage": [1, 1, 1], "n_conv_per_stage_decoder": [1, 1],
    }  # fmt: skip
    torch.manual_seed(0)
    model = kind(
        1, 3, widths, nn.Conv2d, 3, [1, 2, 2], num_classes=3, **depth, conv_bias=True, norm_op=nn.InstanceNorm2d,
        norm_op_kwargs={"eps": 1e-5, "affine": True}, nonlin=nn.LeakyReLU, nonlin_kwargs={"inplace": True},
        deep_supervision=True,
    )  # fmt: skip
    root = write_nnunet(tmp_path, {"2d": configuration}, model, name="2d")
    trained = load_nnunet(root)
    image = torch.randn(trained.input_shape)
    assert trained.input_shape == (1, 1, 16, 16)
    assert torch.equal(trained.model(image), model.eval()(image)[0])
    deep = load_nnunet(root, deep_supervision=True).model(image)
    assert [tuple(output.shape) for output in deep] == [(1, 3, 16, 16), (1, 3, 8, 8)]
    assert inspect(open_model(str(root)))["groups"] > 4


def write_bundle(root, network_def, state, *, spatial_shape=(16, 16), **entries):
    (root / "configs").mkdir(parents=True)
    (root / "models").mkdir()
    (root / "configs" / "inference.json").write_text(json.dumps({**entries, "network_def": network_def}))
    shape = {"num_channels": 3, "spatial_shape": list(spatial_shape)}
    (root / "configs" / "metadata.json").write_text(
        json.dumps({"network_data_format": {"inputs": {"image": shape}, "outputs": {}}})
    )
    torch.save(state, root / "models" / "model.pt")
    return root


UNET = {
    "_target_": "UNet", "spatial_dims": 2, "in_channels": 3, "out_channels": "@classes", "channels": [4, 8],
    "strides": "$[2]",
}  # fmt: skip


def unet():
    from monai.networks.nets import UNet

    torch.manual_seed(0)
    return UNet(2, 3, 2, (4, 8), (2,)).eval()


@pytest.mark.parametrize("nested", [False, True])
def test_a_monai_bundle_is_a_model(tmp_path, nested):
    model = unet()
    state = {"model": model.state_dict(), "epoch": 3} if nested else model.state_dict()
    root = write_bundle(tmp_path / "bundle", UNET, state, classes=2, device="$torch.device('cpu')")
    trained = load_bundle(root)
    assert trained.input_shape == (1, 3, 16, 16)
    image = torch.randn(trained.input_shape)
    assert torch.equal(trained.model(image), model(image))
    assert trained.spec is not None
    assert trained.spec.builder == "monai.networks.nets.unet:UNet"
    assert trained.spec.kwargs["strides"] == [2]  # resolved: the bundle is not needed again
    assert repr(trained.spec.build()) == repr(model)
    assert inspect(open_model(str(root)))["groups"] == 2


def test_sides_that_a_bundle_leaves_open_are_asked_for(tmp_path):
    root = write_bundle(tmp_path / "bundle", UNET, unet().state_dict(), spatial_shape=("16*n", "*"), classes=2)
    with pytest.raises(InputError, match="give --input-shape"):
        open_model(str(root))
    assert open_model(str(root), input_shape="1,3,8,8").input_shape == (1, 3, 8, 8)


def test_incomplete_bundles_say_what_is_missing(tmp_path):
    root = write_bundle(tmp_path / "a", {**UNET, "_target_": "UNett"}, unet().state_dict(), classes=2)
    with pytest.raises(RecordError, match=r"its network cannot be built .*UNett"):
        load_bundle(root)
    root = write_bundle(tmp_path / "b", "@other", unet().state_dict(), classes=2)
    with pytest.raises(RecordError, match="describes no network"):
        load_bundle(root)
    root = write_bundle(tmp_path / "c", UNET, {"a": unet().state_dict(), "b": unet().state_dict()}, classes=2)
    with pytest.raises(RecordError, match="holds 2 sets of weights"):
        load_bundle(root)
    (root / "models" / "model.pt").unlink()
    with pytest.raises(RecordError, match=r"has no models.model\.pt; download"):
        load_bundle(root)


class Runs:
    """What a hostile checkpoint may hold."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def test_a_checkpoint_never_runs_code(tmp_path):
    torch.save({"model": {"a": torch.ones(1)}, "hook": Runs(f"touch {tmp_path / 'ran'}")}, tmp_path / "evil.pt")
    with pytest.raises(RecordError, match=r"evil\.pt is a pickle that holds more than weights.*system"):
        read_checkpoint(tmp_path / "evil.pt")
    torch.save(network(), tmp_path / "module.pt")
    with pytest.raises(RecordError, match="state dict again"):
        read_checkpoint(tmp_path / "module.pt")
    assert not (tmp_path / "ran").exists()
    assert np.dtype not in torch.serialization.get_safe_globals()  # only while a checkpoint is read


def test_damaged_checkpoints_are_refused(tmp_path):
    (tmp_path / "empty.pt").touch()
    (tmp_path / "text.pt").write_text("no pickle at all")
    (tmp_path / "old.pt").write_bytes(pickle.dumps({"a": 1}))
    for name in ("absent.pt", "empty.pt", "text.pt"):
        with pytest.raises(RecordError, match=name):
            read_checkpoint(tmp_path / name)


def test_missing_packages_are_named(tmp_path):
    architecture = {**PLAIN["architecture"], "network_class_name": "no_such_package.unet.PlainConvUNet"}
    root = write_nnunet(tmp_path, {"3d_fullres": {**PLAIN, "architecture": architecture}}, network())
    with pytest.raises(InputError, match=r"no_such_package\.unet\.PlainConvUNet, .*pip install secateur\[nnunet\]"):
        load_nnunet(root)
