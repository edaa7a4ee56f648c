"""Self-contained ``.pt2`` files: they run without secateur, and say what the network says."""

import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch
from torch import nn

import secateur as sc
from secateur.deploy.onnx import Batch, ExportedFile
from secateur.deploy.parity import check_parity, require_parity
from secateur.deploy.pt2 import export_pt2
from secateur.errors import GraphError, ParityError
from secateur.nets.reference import monai_unet

WITHOUT_SECATEUR = """
import sys
sys.modules["secateur"] = sys.modules["monai"] = None  # importing either fails
import torch
program = torch.export.load(sys.argv[1]).module()
torch.save(program(torch.load(sys.argv[2], weights_only=True)), sys.argv[3])
"""


@pytest.fixture(scope="module")
def pruned():
    spec = monai_unet(8, levels=2)
    torch.manual_seed(0)
    model = spec.build().eval()
    graph = sc.trace(model, torch.zeros(1, 3, 16, 16))
    plan = sc.allocate(graph, sc.L2Norm().score(model, graph), sc.MacsBudget(0.4))
    return sc.remove(model, graph, plan).eval()


@pytest.fixture(scope="module")
def images():
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(1, 3, 16, 16, generator=generator) for _ in range(4)]


@pytest.fixture(scope="module")
def exported(pruned, images, tmp_path_factory):
    return export_pt2(pruned, images[0], tmp_path_factory.mktemp("export"))


def test_a_pruned_network_runs_without_secateur(pruned, images, exported, tmp_path):
    assert (exported.path.name, exported.batch) == ("model.pt2", Batch.DYNAMIC)
    batch = torch.cat(images[:3])
    torch.save(batch, tmp_path / "in.pt")
    files = [str(exported.path), str(tmp_path / "in.pt"), str(tmp_path / "out.pt")]
    subprocess.run([sys.executable, "-c", WITHOUT_SECATEUR, *files], check=True)
    with torch.no_grad():
        torch.testing.assert_close(torch.load(tmp_path / "out.pt", weights_only=True), pruned(batch))


def test_the_loaded_program_is_compared(pruned, images, exported):
    record = check_parity(pruned, [exported], images, threads=1)
    require_parity(record)
    (row,) = record["runtimes"]
    assert (row["runtime"], row["file"], row["flipped_pixels"]) == ("torch", "model.pt2", 0)
    assert row["max_abs_diff"] <= 1e-5


def test_another_networks_file_is_caught(pruned, images, exported):
    other = monai_unet(8, levels=2).build().eval()
    record = check_parity(other, [exported], images, threads=1)
    assert not record["passed"]
    with pytest.raises(ParityError, match=r"model\.pt2 on torch"):
        require_parity(record)


def test_a_file_tells_nothing_of_where_and_on_what_it_was_made(pruned, images, exported):
    pixels = images[0].numpy().tobytes()
    with zipfile.ZipFile(exported.path) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    weights = b"".join(contents.values())
    assert np.concatenate([p.detach().numpy().ravel() for p in pruned.parameters()])[:8].tobytes() in weights
    assert pixels[:64] not in weights
    for name, content in contents.items():
        assert b"site-packages" not in content, name
        assert b'.py"' not in content, name


class OneSample(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 1, 1)

    def forward(self, x):
        return self.conv(x).reshape(1, 1, 16, 16)


class Branching(OneSample):
    def forward(self, x):
        return self.conv(x) if x.sum() > 0 else x


def test_a_fixed_batch_stays_fixed_and_branches_are_refused(images, tmp_path, capfd):
    model = OneSample().eval()
    file = export_pt2(model, images[0], tmp_path)
    assert file == ExportedFile(tmp_path / "model.pt2", Batch.FIXED)
    require_parity(check_parity(model, [file], images, threads=1))
    capfd.readouterr()
    with pytest.raises(GraphError, match=r"cannot be exported to \.pt2 at \(1, 3, 16, 16\): "):
        export_pt2(Branching(), images[0], tmp_path / "branching")
    assert not (tmp_path / "branching").exists()
    assert capfd.readouterr() == ("", "")
