"""The tasks that the page of runs can show, by name."""

from collections.abc import Sequence

from secateur.errors import InputError, RecordError
from secateur.report.runs.records import Run
from secateur.report.tasks.nuclei import NUCLEI
from secateur.report.tasks.polyp import POLYP
from secateur.report.tasks.task_view import TaskView

VIEWS = {"polyp": POLYP, "nuclei": NUCLEI}


def view_of(runs: Sequence[Run]) -> TaskView:
    """The view of the task that ``runs`` have in common.

    Raises:
        InputError: they are of several tasks.
        RecordError: no page knows their task.
    """
    tasks = {str(run.info["task"]): run.name for run in runs}
    if len(tasks) > 1:
        given = ", ".join(f"'{name}' of {task}" for task, name in tasks.items())
        raise InputError(f"the runs are of several tasks, {given}; give runs of one task.")
    (task,) = tasks
    if task not in VIEWS:
        raise RecordError(f"there is no page for the task {task!r}; there is one for {', '.join(VIEWS)}.")
    return VIEWS[task]
