"""Named recipes: each a function that returns the whole of a run's settings."""

from collections.abc import Callable, Mapping

from secateur.recipes.nuclei import nuclei, nuclei_demo, nuclei_shared, nuclei_study
from secateur.recipes.polyp import polyp, polyp_demo, polyp_large, polyp_study
from secateur.recipes.recipe import Recipe

RECIPES: Mapping[str, Callable[[], Recipe]] = {
    "polyp": polyp,
    "polyp-large": polyp_large,
    "polyp-study": polyp_study,
    "polyp-demo": polyp_demo,
    "nuclei": nuclei,
    "nuclei-shared": nuclei_shared,
    "nuclei-study": nuclei_study,
    "nuclei-demo": nuclei_demo,
}
