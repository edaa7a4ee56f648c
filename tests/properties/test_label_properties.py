"""Labels against slow, obvious bookkeeping: united sets, and every label followed through a change of shape."""

from math import prod

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from secateur.graph.labels import LabelSpace
from secateur.graph.reshaping import reshaped, segments

pairs = st.lists(st.tuples(st.integers(0, 19), st.integers(0, 19)), max_size=30)


@settings(max_examples=100)
@given(batches=st.lists(pairs, max_size=4))
def test_united_sets_are_those_of_a_slow_union(batches):
    space = LabelSpace()
    labels = space.fresh(20)
    sets = {label: {label} for label in range(20)}
    for batch in batches:
        if batch:
            space.unite(*(np.array(side) for side in zip(*batch, strict=True)))
        for first, second in batch:
            merged = sets[first] | sets[second]
            sets |= dict.fromkeys(merged, merged)
        assert space.representatives(labels).tolist() == [min(sets[label]) for label in range(20)]


@st.composite
def shapes(draw):
    """Two shapes of one size, and which dimensions of the first carry labels."""
    atoms = draw(st.lists(st.sampled_from([1, 2, 3, 4]), min_size=1, max_size=5))

    def joined():
        cuts = sorted(draw(st.sets(st.integers(1, len(atoms)), max_size=len(atoms)))) or [len(atoms)]
        cuts[-1] = len(atoms)
        return tuple(prod(atoms[a:b]) for a, b in zip([0, *cuts[:-1]], cuts, strict=True))

    before, after = joined(), joined()
    return before, after, [draw(st.booleans()) for _ in before]


@settings(max_examples=200)
@given(shapes())
def test_labels_keep_their_elements_when_the_shape_changes(given_shapes):
    before, after, labelled = given_shapes
    own = [size if chosen else 1 for size, chosen in zip(before, labelled, strict=True)]
    labels = np.arange(prod(own), dtype=np.int64).reshape(own)
    wanted = np.broadcast_to(labels, before).reshape(after)
    for spelled in (labels, np.broadcast_to(labels, before)):
        found = reshaped(spelled, before, after)
        assert found.ndim == len(after)
        np.testing.assert_array_equal(np.broadcast_to(found, after), wanted)
        for dim, size in enumerate(found.shape):  # no more labels than needed
            assert size == 1 or not (found == found.take([0], axis=dim)).all()


@given(shapes())
def test_segments_divide_both_shapes(given_shapes):
    before, after, _ = given_shapes
    found = list(segments(before, after))
    assert [dim for segment in found for dim in segment.before] == list(range(len(before)))
    assert [dim for segment in found for dim in segment.after] == list(range(len(after)))
    for segment in found:
        assert prod(before[dim] for dim in segment.before) == prod(after[dim] for dim in segment.after)
