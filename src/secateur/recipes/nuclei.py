"""Recipes for single nuclei in H&E tissue, with weights pruned by magnitude (arXiv 2206.07422)."""

from secateur.data.sources import DataRecipe
from secateur.deploy.timing import BenchRecipe
from secateur.nets.nuclei import shared_encoder, two_networks
from secateur.recipes.pruning import PruneRecipe
from secateur.recipes.ratios import RatioSweepRecipe
from secateur.recipes.recipe import Recipe
from secateur.recipes.sparsity import SparsityRecipe
from secateur.train.recipe import TrainRecipe

_COMPRESSIONS = (1, 2, 4, 5, 8, 10, 16, 20, 32, 50, 64, 100)


def nuclei() -> Recipe:
    """Two U-Nets of 1.9 M parameters each, one for the mask and one for the distances, on windows of 128x128."""
    return Recipe(
        task="nuclei",
        network=two_networks(),
        data=DataRecipe(size=128, train=40, val=8, test=12),
        training=TrainRecipe(epochs=60),
        sparsity=SparsityRecipe(recovery=TrainRecipe(epochs=12, learning_rate=5e-4, schedule="cosine")),
        bench=BenchRecipe(threads=2),
        bench_size=256,
    )


def nuclei_shared() -> Recipe:
    """The same job by one encoder with two decoders, 2.7 M parameters."""
    return nuclei().model_copy(update={"network": shared_encoder()})


def nuclei_study() -> Recipe:
    """What layer-wise and network-wide magnitude pruning leave of mask, distances and nuclei, ratio by ratio.

    For tiles of 1000x1000. Without drop-out, which costs a fifth of the time, since no window is seen twice alike; the
    highest rate is the better of two on validation. Every cut is recovered by the same few epochs.
    """
    recipe = nuclei()
    recovery = TrainRecipe(epochs=3, learning_rate=1e-3, schedule="cosine", precision="bfloat16")
    changes = {
        "network": two_networks(dropout=0.0),
        "data": recipe.data.model_copy(update={"source": "nuclei_kumar"}),
        "training": TrainRecipe(epochs=24, learning_rate=3e-3, precision="bfloat16"),
        "pruning": recipe.pruning.model_copy(update={"recovery": recovery}),
        "sparsity": SparsityRecipe(recovery=recovery),
        "ratios": RatioSweepRecipe(
            compressions=_COMPRESSIONS,
            seeds=(0, 1, 2),
            repeated_compressions=(1, 5, 16, 20, 64),
            random_compressions=_COMPRESSIONS[1:],
            small_compressions=_COMPRESSIONS[1:],
            branches=("semantic", "distance"),
            branch_compressions=(16, 64),
            structured_keep_ratios=(0.5, 0.25, 0.1),
            before_recovery=False,
        ),
    }
    return recipe.model_copy(update=changes)


def nuclei_demo() -> Recipe:
    """The same job on synthetic tiles in a few minutes, with small networks."""
    recipe = nuclei()
    recovery = TrainRecipe(epochs=16, learning_rate=1e-3, schedule="cosine")
    changes = {
        "network": two_networks((8, 16, 32, 64)),
        "data": DataRecipe(size=64, train=24, val=4, test=6),
        "training": TrainRecipe(epochs=40, learning_rate=3e-3),
        "pruning": PruneRecipe(keep_ratio=0.25, round_to=4, min_channels=4, min_keep_ratio=0.1, recovery=recovery),
        "sparsity": SparsityRecipe(compression=5, recovery=recovery),
        "bench": BenchRecipe(threads=2, seconds=4),
        "bench_size": 128,
    }
    return recipe.model_copy(update=changes)
