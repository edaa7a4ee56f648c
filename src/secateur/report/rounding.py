"""How numbers are written: rounded alike everywhere, a true minus sign, ``n/a`` for what is undefined."""

from collections.abc import Sequence

MISSING = "n/a"
_GAP = "\N{NO-BREAK SPACE}"  # a number and its unit stay on one line


def three_digits(value: float) -> str:
    """Three significant digits without an exponent: 0.0123, 9.13, 48.1, 1,234."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    text = f"{value:.3g}"
    return text if "e" not in text else f"{value:.1e}"


def counted(value: float) -> str:
    """A count with a unit prefix: 19.8 G, 7.93 M, 512."""
    for factor, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= factor:
            return f"{three_digits(value / factor)}{_GAP}{prefix}"
    return three_digits(value)


def percent(ratio: float) -> str:
    """A share in percent."""
    return f"{three_digits(100 * ratio)}{_GAP}%"


def score(value: float | None, digits: int = 3) -> str:
    """A metric with its decimals, three in [0, 1]."""
    return MISSING if value is None else f"{value:.{digits}f}"


def signed(value: float, digits: int = 3) -> str:
    """A difference of two scores; what rounds to zero has no sign."""
    text = f"{value:+.{digits}f}"
    return text[1:] if float(text) == 0 else text.replace("-", "\N{MINUS SIGN}")


def ratio(value: float) -> str:
    """A compression ratio with a multiplication sign."""
    return f"{value:.4g}\N{MULTIPLICATION SIGN}"


def share_text(count: int | None, of: int | None) -> str:
    """A count of a total; empty for None."""
    return "" if count is None or of is None else f"{count} of {of}"


def plural(count: int, noun: str) -> str:
    """A count with its noun: 1 filter, 2 filters."""
    return f"{count:,} {noun}{'s' * (count != 1)}"


def listed(names: Sequence[str]) -> str:
    """Names in a sentence: a, b and c."""
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else "".join(names)


def times(ratio: float) -> str:
    """A factor with one decimal and a multiplication sign."""
    return f"{ratio:.1f}\N{MULTIPLICATION SIGN}"


def pixels(value: float | None) -> str:
    """A distance in pixels with one decimal."""
    return MISSING if value is None else f"{value:.1f}"


def milliseconds(value: float) -> str:
    """A latency."""
    return f"{three_digits(value)}{_GAP}ms"


def megabytes(size_bytes: float) -> str:
    """A file size in units of 10^6 bytes."""
    return f"{three_digits(size_bytes / 1e6)}{_GAP}MB"


def tiny(value: float | None) -> str:
    """A numerical error in scientific notation; None is one that is not finite."""
    return "not finite" if value is None else f"{value:.1e}"
