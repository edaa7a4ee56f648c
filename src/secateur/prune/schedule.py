"""How much of the network to keep after each round: pure functions of the round."""

from math import isfinite

from secateur.errors import RecipeError


def geometric(round_: int, rounds: int, keep_ratio: float) -> float:
    """Every round keeps the same share of what the one before left; one round is one-shot.

    Args:
        round_: counted from 1; 0 is before the first.
        rounds: how many there are.
        keep_ratio: share of the dense network's cost to keep in the end.

    Returns:
        Share of the dense network's cost kept after ``round_``: falling, 1 at round 0, ``keep_ratio`` at the last.

    Raises:
        RecipeError: a round outside 0..rounds, no rounds, or a keep ratio outside (0, 1].
    """
    if rounds < 1 or not 0 <= round_ <= rounds or not 0 < keep_ratio <= 1:
        raise RecipeError(
            f"round {round_} of {rounds} with keep ratio {keep_ratio}: give at least one round, "
            f"a round within them and a ratio above 0 and at most 1."
        )
    return keep_ratio if round_ == rounds else float(keep_ratio ** (round_ / rounds))


def polynomial(round_: int, rounds: int, compression: float, *, power: float = 3.0) -> float:
    """The compression of single weights after a round: many leave early, while there are many, and few late.

    The share that is gone is ``s = (1 - 1 / compression) (1 - (1 - round_ / rounds) ** power)``, from none: Zhu &
    Gupta 2017 (arXiv 1710.01878), equation 1, whose steps are rounds here and whose power is 3.

    Args:
        round_: counted from 1; 0 is before the first.
        rounds: how many there are; one is one-shot.
        compression: weights before / weights left in the end, 1 or more.
        power: 1 removes equally many in every round, more removes more of them early.

    Returns:
        Weights before / weights left after ``round_``: rising, 1 at round 0, exactly ``compression`` at the last.

    Raises:
        RecipeError: a round outside 0..rounds, no rounds, a compression below 1 or a power below 1.
    """
    if rounds < 1 or not 0 <= round_ <= rounds or compression < 1 or not isfinite(compression) or not power >= 1:
        raise RecipeError(
            f"round {round_} of {rounds} with compression {compression} and power {power}: give at least one round, "
            f"a round within them, and a compression and a power of 1 or more."
        )
    gone = (1 - 1 / compression) * (1 - (1 - round_ / rounds) ** power)
    return compression if round_ == rounds else 1 / (1 - gone)
