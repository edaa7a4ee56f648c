"""Recipes for polyp segmentation in colonoscopy frames."""

from secateur.data.sources import DataRecipe
from secateur.deploy.timing import BenchRecipe
from secateur.nets.reference import monai_unet
from secateur.recipes.recipe import PruneRecipe, Recipe
from secateur.train.recipe import TrainRecipe


def polyp() -> Recipe:
    """A 5.7-GMAC U-Net (at 352x352), trained at 192x192 so that a run on two CPU cores ends within an hour.

    Every group keeps a tenth of its channels or more: without that floor, at 10 % of the MACs, Taylor scores empty
    the deep layers and the network recovers worse on validation (``benchmarks/polyp_kvasir_2core-cpu_2026-11-21.md``).
    """
    return Recipe(
        network=monai_unet(32),
        data=DataRecipe(size=192),
        training=TrainRecipe(epochs=60),
        pruning=PruneRecipe(min_keep_ratio=0.1),
        bench=BenchRecipe(threads=2),
    )


def polyp_large() -> Recipe:
    """The same with twice the channels, 22.7 GMACs at 352x352, trained at 352x352: for an accelerator."""
    recipe = polyp()
    return recipe.model_copy(update={"network": monai_unet(64), "data": DataRecipe(size=352)})


def polyp_demo() -> Recipe:
    """The main job on synthetic frames in a few minutes: a small U-Net at 96x96, cut to 10 % of its MACs."""
    return Recipe(
        network=monai_unet(16, levels=4),
        data=DataRecipe(size=96, train=480, val=40, test=60, augment=False),
        training=TrainRecipe(epochs=16, learning_rate=3e-3),
        pruning=PruneRecipe(
            round_to=4,
            min_channels=4,
            min_keep_ratio=0.1,
            recovery=TrainRecipe(epochs=12, learning_rate=2e-3, schedule="cosine"),
        ),
        bench=BenchRecipe(threads=2, seconds=4),
        bench_size=192,
    )
