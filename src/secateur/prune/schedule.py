"""How much of the network to keep after each round: pure functions of the round."""

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
