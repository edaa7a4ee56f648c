"""Recipes for polyp segmentation in colonoscopy frames."""

from secateur.data.sources import DataRecipe
from secateur.deploy.runtimes import Target
from secateur.deploy.timing import BenchRecipe
from secateur.nets.reference import monai_unet
from secateur.recipes.pruning import PruneRecipe
from secateur.recipes.recipe import Recipe
from secateur.recipes.sweep import SweepRecipe
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


def polyp_study() -> Recipe:
    """What gradient-normalised Taylor pruning is worth on two hospitals, beside honest baselines.

    The 5.7-GMAC U-Net of `polyp`, trained at 160x160 in bfloat16, which leaves the Dice on validation about where it
    was (0.80; 0.81 at 192x192 in float32) and takes two fifths of the time.
    """
    recipe = polyp()
    recovery = TrainRecipe(epochs=12, learning_rate=5e-4, schedule="cosine", precision="bfloat16")
    targets = ("torch", "onnxruntime", "openvino", "openvino:bfloat16")
    changes = {
        "data": DataRecipe(source="polyp_kvasir", size=160),
        "training": recipe.training.model_copy(update={"precision": "bfloat16"}),
        "pruning": recipe.pruning.model_copy(update={"recovery": recovery}),
        "bench": recipe.bench.model_copy(update={"targets": tuple(Target.model_validate(name) for name in targets)}),
        "sweep": SweepRecipe(
            criteria=(
                "taylor",
                "taylor-random-gradient",
                "taylor-unnormalised",
                "taylor-absolute",
                "l2",
                "random",
                "uniform",
            ),
            one_shot_keep_ratios=(0.9, 0.75),
            seeds=(0, 1, 2),
            repeated_keep_ratios=(0.1,),
            scratch_keep_ratios=(0.5, 0.25, 0.1, 0.05),
            scratch_macs_keep_ratios=(0.25,),
            distilled_keep_ratios=(0.1,),
            scoring_samples=(1, 4, 16, 64),
            elsewhere=("polyp_polypgen",),
        ),
    }
    return recipe.model_copy(update=changes)


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
