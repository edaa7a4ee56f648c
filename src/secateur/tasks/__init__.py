"""Clinical jobs by name: each its data, loss, metrics and pictures. See `secateur.tasks.task.Task`."""

from collections.abc import Callable, Mapping

from secateur.data.instances import Marking
from secateur.data.sources import DataRecipe
from secateur.tasks.nuclei import NucleiTask
from secateur.tasks.polyp import PolypTask
from secateur.tasks.task import Task

TASKS: Mapping[str, Callable[[DataRecipe], Task]] = {
    "polyp": lambda data: PolypTask(data.size),
    "nuclei": lambda data: NucleiTask(data.size, Marking(data.marking)),
}
