"""Records and atomic files."""

import pytest
import torch
from safetensors.torch import save_file

from secateur.errors import RecordError
from secateur.records import atomic_path, read_record, write_record


def test_a_failed_write_leaves_the_old_file_whole(tmp_path):
    path = tmp_path / "run.json"
    write_record(path, {"a": 1})

    def write_half():
        with atomic_path(path) as temporary:
            temporary.write_text('{"a":')
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert read_record(path) == {"schema": 1, "a": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_numbers_that_are_not_finite_never_reach_a_record(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_record(tmp_path / "x.json", {"dice": float("nan")})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "does not exist"),
        ("{", "not a readable JSON"),
        ('{"schema": 7}', "has schema 7"),
        ("[]", "has schema None"),
    ],
)
def test_what_is_not_a_record_is_refused(tmp_path, text, message):
    path = tmp_path / "run.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(RecordError, match=message):
        read_record(path)


def test_weights_may_be_read_by_whoever_may_read_records(tmp_path):
    with atomic_path(tmp_path / "model.safetensors") as temporary:
        save_file({"weight": torch.zeros(1)}, temporary)
    write_record(tmp_path / "run.json", {})
    weights, record = ((tmp_path / name).stat().st_mode for name in ("model.safetensors", "run.json"))
    assert weights == record
