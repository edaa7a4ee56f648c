"""Does everything work on this machine? A small network goes through every stage that has a dependency."""

from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import nn

from secateur.deploy.onnx import export_onnx
from secateur.deploy.parity import check_parity, require_parity
from secateur.errors import CheckError
from secateur.nets.reference import monai_unet
from secateur.prune.allocate import allocate
from secateur.prune.budget import MacsBudget
from secateur.prune.criteria.norms import L2Norm
from secateur.prune.surgery import remove_with_proof
from secateur.prune.trial import trace
from secateur.records import Record
from secateur.store.runs import surroundings


def examine() -> Record:
    """Try a removal with its proof and an export on every runtime, and look for the page's libraries.

    Returns:
        Record with ``passed``, ``checks[].{name, result, passed}``, and versions and machine.
    """
    small: list[nn.Module] = []
    facts = surroundings()
    checks = [
        _check("versions", lambda: ", ".join(f"{name} {version}" for name, version in facts["versions"].items())),
        _check("machine", lambda: f"{facts['machine']['cpu']}, {facts['machine']['cores']} cores"),
        _check("accelerator", lambda: facts["machine"]["accelerator"] or "none, which is fine"),
        _check("remove with proof", lambda: _remove(small)),
        _check("export, ONNX Runtime, OpenVINO", lambda: _export(small)),
        _check("report", _report_libraries),
    ]
    return {"passed": all(check["passed"] for check in checks), "checks": checks, **facts}


def _check(name: str, attempt: Callable[[], str]) -> Record:
    try:
        return {"name": name, "result": attempt(), "passed": True}
    except Exception as error:  # whatever is broken here is the finding
        return {"name": name, "result": " ".join(str(error).split()), "passed": False}


def _remove(small: list[nn.Module]) -> str:
    model = monai_unet(8, levels=3).build()
    graph = trace(model, torch.zeros(1, 3, 32, 32))
    plan = allocate(graph, L2Norm().score(model, graph), MacsBudget(0.25))
    network, proof = remove_with_proof(model, graph, plan)
    small.append(network)
    return f"keeps {plan.reached['macs_keep_ratio']:.1%} of the MACs, largest difference {proof.max_abs_diff:.2g}"


def _export(small: list[nn.Module]) -> str:
    if not small:
        raise CheckError("there is no pruned network to export; the removal above has to work first")
    image = torch.rand(1, 3, 32, 32)
    with TemporaryDirectory() as folder:
        record = check_parity(small[0], export_onnx(small[0], image, Path(folder)), [image], threads=1)
    require_parity(record)
    return f"largest difference {max(row['max_abs_diff'] for row in record['runtimes']):.2g}"


def _report_libraries() -> str:
    return ", ".join(f"{name} {metadata.version(name)}" for name in ("Jinja2", "plotly"))
