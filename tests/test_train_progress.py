"""Progress bars: they end with what they show, whatever ends it."""

import gc
import io

import pytest
from rich.console import Console

from secateur.train.progress import watched


def stopped_while_watching(console):
    with watched([1, 2], "read", console) as items:
        for _ in items:
            raise RuntimeError


def test_a_bar_goes_with_its_block_and_leaves_nothing_for_later():
    screen = io.StringIO()
    with pytest.raises(RuntimeError):
        stopped_while_watching(Console(file=screen, force_terminal=True))
    assert "read" in screen.getvalue()
    at_the_end = screen.getvalue()
    assert at_the_end.endswith("\x1b[2K")  # the line is cleared
    gc.collect()
    assert screen.getvalue() == at_the_end


@pytest.mark.parametrize("console", [None, Console(file=io.StringIO(), force_terminal=False)])
def test_elsewhere_than_on_a_terminal_nothing_is_written(console):
    with watched([1, 2], "read", console) as items:
        assert list(items) == [1, 2]
    assert console is None or console.file.getvalue() == ""
