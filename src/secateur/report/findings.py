"""What pages say in one line, and what they all have to say."""

from dataclasses import dataclass

SCOPES = {"layer": "layer-wise", "network": "network-wide", "2:4": "2:4"}
SYNTHETIC = "Synthetic data: shows that the machinery works, says nothing about clinical value."
ZEROS_ARE_NOT_SPEED = (
    "Zeros alone do not make a CPU faster: dense kernels multiply by them as by any number. What can save time is "
    "filters that left for real; what the rest saves is space on disk."
)
_FEW_CASES = 20


@dataclass(frozen=True)
class Finding:
    """One line of a summary: what it is about, and what was found; ``good`` is None where it is neither."""

    topic: str
    text: str
    good: bool | None = None


def caution(cases: int) -> str | None:
    """A warning where there are too few cases for intervals to be trusted."""
    if cases >= _FEW_CASES:
        return None
    if cases == 1:
        return "A single case has no interval, so no mean is shown."
    return f"Only {cases} cases: intervals from so few are rough and tend to be too narrow."
