"""Sparse files give back every bit, are as small as they should be, and refuse damage."""

import json
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn

from secateur.errors import RecordError
from secateur.store import sparse
from secateur.store.sparse import load_sparse, save_sparse, sizes

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.complex64,
          torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool)  # fmt: skip


def bits(tensor):
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8)


def assert_same_bits(found, expected):
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        assert (found[name].dtype, found[name].shape) == (tensor.dtype, tensor.shape)
        assert torch.equal(bits(found[name]), bits(tensor)), name


def scattered(shape, density, *, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    numbers = torch.randn(shape, generator=generator)
    return numbers.where(torch.rand(shape, generator=generator) < density, 0).to(dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("density", [0, 0.01, 0.3, 1])
def test_every_type_comes_back(tmp_path, dtype, density):
    tensors = {"a": scattered((7, 5, 3, 3), density).mul(50).to(dtype), "b": scattered((1000,), density).to(dtype)}
    save_sparse(tmp_path / "x", tensors)
    assert_same_bits(load_sparse(tmp_path / "x"), tensors)


def test_odd_values_and_shapes_come_back(tmp_path):
    payload = torch.tensor([0x7FC00001, 0x7F800001, -1, 0, -(2**31), 1], dtype=torch.int32).view(torch.float32)
    tensors = {
        "nan, signalling nan, -0, smallest": payload,
        "infinite": torch.tensor([[torch.inf, -torch.inf, 0.0, -0.0]], dtype=torch.bfloat16),
        "scalar": torch.tensor(3),
        "zero": torch.tensor(0.0),
        "empty": torch.empty(0, 3),
        "none/of it": torch.zeros(4, 1000),
        "transposed": scattered((6, 8), 0.5).t(),
        "channels_last": scattered((2, 3, 4, 4), 0.5).to(memory_format=torch.channels_last),
        "parameter": nn.Parameter(scattered((5, 5), 0.5)),
    }
    save_sparse(tmp_path / "new" / "x", tensors)
    assert_same_bits(load_sparse(tmp_path / "new" / "x"), tensors)
    save_sparse(tmp_path / "x", {})
    assert load_sparse(tmp_path / "x") == {}


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.one_of(st.integers(0, 3), st.integers(250, 260), st.integers(505, 515), st.integers(760, 1030)),
            st.integers(-100, 100).filter(bool),
        ),
        max_size=12,
    ),
    st.integers(0, 600),
)
def test_gaps_of_any_length(tmp_path_factory, runs, tail):
    """Zeros around the lengths at which a gap takes one more byte, before, between and after numbers."""
    line = [number for zeros, last in runs for number in (*[0] * zeros, last)] + [0] * tail
    present = np.array(line, dtype=np.int8) != 0
    places = sparse._gaps(present)
    assert len(places) == sum(1 + zeros // 255 for zeros, _ in runs)
    entry = sparse._Entry("int8", (len(line),), sparse.Code.GAPS, len(places), int(present.sum()))
    assert np.array_equal(sparse._present(entry, places), present)


class Net(nn.Module):
    def __init__(self, density):
        super().__init__()
        self.conv = nn.Conv2d(64, 256, 3)
        self.again = self.conv
        self.norm = nn.BatchNorm2d(256)
        self.register_buffer("scratch", torch.zeros(10_000), persistent=False)
        with torch.no_grad():
            self.conv.weight.copy_(scattered(self.conv.weight.shape, density, seed=3))


@pytest.mark.parametrize(
    ("density", "code"), [(1, "all"), (0.5, "mask"), (0.2, "mask"), (0.02, "gaps"), (0.01, "gaps")]
)
def test_sizes_are_those_of_files(tmp_path, density, code):
    torch.manual_seed(0)
    model = Net(density)
    found = sizes(model)
    tensors = {n: t.contiguous() for n, t in model.state_dict().items() if not n.startswith("again")}
    save_file(tensors, tmp_path / "dense")
    save_sparse(tmp_path / "sparse", tensors)
    dense = (tmp_path / "dense").read_bytes()
    assert found.dense_bytes == len(dense)
    assert found.compressed_bytes == (tmp_path / "sparse").stat().st_size
    assert found.gzip_bytes == pytest.approx(len(zlib.compress(dense, 9)), abs=20)
    assert found.numbers == sum(tensor.numel() for tensor in tensors.values())
    assert found.zeros == sum(int((tensor == 0).sum()) for tensor in tensors.values())
    weight = model.conv.weight.numel()
    numbers = int((model.conv.weight != 0).sum())
    places = {"all": 0, "mask": weight // 8, "gaps": numbers}[code]
    assert found.sparse_bytes == pytest.approx(4 * (found.numbers - found.zeros) + places, rel=0.03)
    assert found.codes[sparse.Code(code)] >= 1
    assert found.compressed_bytes < min(found.gzip_bytes, found.sparse_bytes + 1000)
    assert json.loads(json.dumps(found.to_record())) == found.to_record()


def test_places_cost_little_more_than_their_entropy(tmp_path):
    """At 1 %, 0.081 bits per element tell where the numbers are; a mask has 1, and compressed about 0.12."""
    marks = scattered((400_000,), 0.01).ne(0)
    save_sparse(tmp_path / "x", {"marks": marks})
    assert (tmp_path / "x").stat().st_size < 1.15 * 0.0808 * 400_000 / 8


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    save_sparse(tmp_path / "x", {"a": torch.ones(3)})

    def fail(tensors, path, metadata):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(sparse, "save_file", fail)
    with pytest.raises(KeyboardInterrupt):
        save_sparse(tmp_path / "x", {"a": torch.zeros(3)})
    assert torch.equal(load_sparse(tmp_path / "x")["a"], torch.ones(3))
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_every_damaged_byte_is_told(tmp_path):
    tensors = {"a": scattered((9, 9), 0.2), "b": scattered((50,), 1)}
    path = tmp_path / "x"
    save_sparse(path, tensors)
    whole = path.read_bytes()
    unnoticed, told = 0, set()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x15]) + whole[place + 1 :])
        try:
            assert_same_bits(load_sparse(path), tensors)
            unnoticed += 1  # a space in the header, say
        except RecordError as error:
            told.add(str(error))
    assert unnoticed < 0.1 * len(whole)
    assert not any("\n" in text for text in told)
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(RecordError, match="damaged"):
            load_sparse(path)


def test_streams_of_another_length_are_refused(tmp_path):
    save_sparse(tmp_path / "x", {"a": scattered((40,), 0.5)})
    blobs = load_file(tmp_path / "x")
    values = zlib.decompress(blobs["values"].numpy().tobytes()) + b"\0\0\0\0"
    blobs["values"] = torch.tensor(list(zlib.compress(values)), dtype=torch.uint8)
    save_file(blobs, tmp_path / "x", {"sparse_schema": "1"})
    with pytest.raises(RecordError, match=r"damaged .*bytes where .* are announced"):
        load_sparse(tmp_path / "x")


def test_other_files_are_refused(tmp_path):
    with pytest.raises(RecordError, match="does not exist"):
        load_sparse(tmp_path / "missing")
    with pytest.raises(RecordError, match="damaged"):
        load_sparse(tmp_path)
    save_file({"a": torch.ones(2)}, tmp_path / "plain")
    with pytest.raises(RecordError, match="sparse schema None, this version of secateur reads 1"):
        load_sparse(tmp_path / "plain")
    save_sparse(tmp_path / "x", {"a": torch.ones(2)})
    save_file(load_file(tmp_path / "x"), tmp_path / "x", {"sparse_schema": "2"})
    with pytest.raises(RecordError, match="sparse schema '2'"):
        load_sparse(tmp_path / "x")


def test_it_reads_what_earlier_versions_wrote(tmp_path):
    """Schema 1, byte by byte: a tensor of each code."""
    entries = {
        "all": {"dtype": "int8", "shape": [2], "code": "all", "places": 0, "values": 2},
        "mask": {"dtype": "int16", "shape": [2, 5], "code": "mask", "places": 2, "values": 2},
        "gaps": {"dtype": "float32", "shape": [300], "code": "gaps", "places": 3, "values": 2},
    }
    places = bytes([0b01000000, 0b01000000, 2, 255, 40])
    values = bytes([5, 6, 0x34, 0x02, 0x12, 0x00]) + bytes([0, 0, 0, 0, 0x80, 0, 0x3F, 0x40])
    streams = {"entries": json.dumps(entries).encode(), "places": places, "values": values}
    blobs = {name: torch.tensor(list(zlib.compress(stream)), dtype=torch.uint8) for name, stream in streams.items()}
    save_file(blobs, tmp_path / "x", {"sparse_schema": "1"})
    found = load_sparse(tmp_path / "x")
    assert found["all"].tolist() == [5, 6]
    assert found["mask"].tolist() == [[0, 0x1234, 0, 0, 0], [0, 0, 0, 0, 2]]
    assert {int(i): float(found["gaps"][i]) for i in found["gaps"].nonzero().flatten()} == {2: 1.0, 298: 2.0}
