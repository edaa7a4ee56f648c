"""What weight pruning left of one network, in words, as a table and as a figure."""

from dataclasses import dataclass

from secateur.records import Record
from secateur.report import rounding
from secateur.report.figures import Figure, base_layout
from secateur.report.findings import SCOPES, ZEROS_ARE_NOT_SPEED, Finding

_MEANINGS = {
    "layer": "the same share of every layer",
    "network": "the smallest weights wherever they are",
    "2:4": "two of every four along the input channels",
}


@dataclass(frozen=True)
class Stays:
    """Dead filters of one group that stay, for one reason."""

    group: str
    reason: str
    filters: int


def density_figure(masks: Record) -> Figure:
    """Share of weights left in every layer, in the order of the network; layers that died stand out."""
    layers = masks["layers"]
    numbers = list(range(1, len(layers) + 1))
    dead = [number for number, layer in zip(numbers, layers, strict=True) if not layer["kept"]]
    data: list[Record] = [
        {
            "type": "bar",
            "name": "weights left",
            "x": numbers,
            "y": [100 * layer["density"] for layer in layers],
            "customdata": [f"{layer['name']}: {layer['kept']:,} of {layer['weights']:,}" for layer in layers],
            "hovertemplate": "%{customdata} (%{y:.3g} %)<extra></extra>",
            "marker": {"color": "var(--pruned)"},
        }
    ]
    if dead:
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": "died",
                "x": dead,
                "y": [0] * len(dead),
                "customdata": [layers[number - 1]["name"] for number in dead],
                "hovertemplate": "%{customdata} died<extra></extra>",
                "marker": {"color": "var(--warn)", "symbol": "x", "size": 9},
                "cliponaxis": False,
            }
        )
    layout = base_layout("layer, from input to output", "weights left, %")
    layout["yaxis"] |= {"rangemode": "tozero"}
    level = {"color": "var(--dense)", "width": 1, "dash": "dot"}
    label = {"text": "all layers", "textposition": "end", "yanchor": "bottom", "font": {"color": "var(--dense)"}}
    across = {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "line": level, "label": label}
    mean = 100 * masks["kept"] / masks["weights"]
    layout["shapes"] = [{**across, "y0": mean, "y1": mean}]
    return {"data": data, "layout": {**layout, "bargap": 0.25, "height": 420}}


def cut_findings(name: str, prune: Record) -> list[Finding]:
    """What was taken out, which layers that killed, what left for real, and what it all takes on disk."""
    masks, scope = prune["masks"], prune["scope"]
    within = f", in {rounding.listed(prune['branches'])} alone" if prune["branches"] else ""
    chosen = "weights drawn at random" if prune["criterion"] == "random" else _MEANINGS[scope]
    text = (
        f"{name} keeps {masks['kept']:,} of the {masks['weights']:,} weights that may go{within}: compression "
        f"{rounding.ratio(masks['compression'])}, {SCOPES[scope]} ({chosen}). Biases and norms"
        f"{'' if prune['outputs'] else ', and the layers that give the outputs,'} stay whole."
    )
    return [Finding("What was cut", text), *_layers(masks), _gone(prune), _disk(prune["sizes"])]


def facts(prune: Record) -> list[tuple[str, str]]:
    """The numbers of the cut, one a line: name and text."""
    masks, sizes, reached, dense = prune["masks"], prune["sizes"], prune["reached"], prune["dense"]
    compaction = prune["compaction"]
    plain = sizes["dense_bytes"]
    return [
        ("Weights that may go", f"{masks['weights']:,} of {dense['params']:,} parameters"),
        ("Weights kept", f"{masks['kept']:,} ({rounding.percent(masks['kept'] / masks['weights'])})"),
        (
            "Compression",
            f"{rounding.ratio(masks['compression'])} (asked: {rounding.ratio(masks['asked_compression'])})",
        ),
        ("Chosen by", f"{masks['choice']}"),
        ("Parameters that are not zero", f"{reached['params']:,} ({rounding.percent(reached['params_keep_ratio'])})"),
        ("Filters without a weight", f"{compaction['dead']:,}"),
        ("Filters that left for real", f"{compaction['left']:,}"),
        ("MACs left", f"{rounding.counted(reached['macs'])} ({rounding.percent(reached['macs_keep_ratio'])})"),
        *_dense_files(prune.get("dense_sizes")),
        ("Plain file", rounding.megabytes(plain)),
        ("Plain file, gzip", _beside(sizes["gzip_bytes"], plain)),
        ("Sparse file", _beside(sizes["compressed_bytes"], plain)),
    ]


def stays(prune: Record) -> list[Stays]:
    """Filters without a weight that could not leave, counted by group and reason."""
    counts: dict[tuple[str, str], int] = {}
    for each in prune["compaction"]["stays"]:
        key = (str(each["group"]), str(each["reason"]))
        counts[key] = counts.get(key, 0) + 1
    return [Stays(group, reason, count) for (group, reason), count in counts.items()]


def proof_finding(prune: Record) -> Finding | None:
    """Whether taking dead filters out changed anything; None where none left."""
    if not prune["compaction"]["left"]:
        return None
    passed = bool(prune["proof"]["passed"])
    text = (
        f"Without its dead filters the network {'gives' if passed else 'does not give'} the same outputs as with them "
        f"(largest difference {rounding.tiny(prune['compaction']['max_abs_diff'])}, in double precision)."
    )
    return Finding("Proof passed" if passed else "Proof failed", text, good=passed)


def _layers(masks: Record) -> list[Finding]:
    found = []
    if masks["dead"]:
        text = f"none of their weights is left in {rounding.listed(masks['dead'])}; they answer the same to any input."
        found.append(Finding("Layers that died", text[0].upper() + text[1:], good=False))
    ones = [str(layer["name"]) for layer in masks["layers"] if layer["kept"] == 1]
    if ones:
        found.append(Finding("Layers that keep one weight", f"{rounding.listed(ones)}.", good=False))
    return found


def _gone(prune: Record) -> Finding:
    compaction, reached = prune["compaction"], prune["reached"]
    if compaction["left"]:
        text = (
            f"{rounding.plural(compaction['dead'], 'filter')} had no weight left; "
            f"{rounding.plural(compaction['left'], 'filter')} left for real, with those that only they fed. "
            f"{rounding.percent(reached['macs_keep_ratio'])} of the MACs are left."
        )
    elif compaction["dead"]:
        text = (
            f"{rounding.plural(compaction['dead'], 'filter')} had no weight left, but none could leave: the MACs "
            "stay as they were."
        )
    else:
        text = "Every filter has a weight left, so none could leave: the MACs stay as they were."
    return Finding("What left for real", f"{text} {ZEROS_ARE_NOT_SPEED}")


def _disk(sizes: Record) -> Finding:
    plain = sizes["dense_bytes"]
    text = (
        f"{rounding.megabytes(sizes['compressed_bytes'])} as a sparse file, {rounding.megabytes(sizes['gzip_bytes'])} "
        f"as a plain one with gzip, {rounding.megabytes(plain)} as a plain one "
        f"({rounding.times(plain / sizes['compressed_bytes'])} the sparse one)."
    )
    return Finding("On disk", text)


def _dense_files(whole: Record | None) -> list[tuple[str, str]]:
    """Of the network before the cut; older records do not say."""
    if whole is None:
        return []
    plain, packed = whole["dense_bytes"], whole["gzip_bytes"]
    return [("Dense network, plain file", rounding.megabytes(plain)), ("Dense network, gzip", _beside(packed, plain))]


def _beside(size: int, plain: int) -> str:
    return f"{rounding.megabytes(size)} ({rounding.percent(size / plain)})"
