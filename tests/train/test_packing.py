"""Packing keeps every bit, and refuses what it cannot keep by the name of its place."""

import json
import math
import struct
from collections import OrderedDict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cartograd.errors import FileFormatError, UsageError
from cartograd.train.packing import pack, unpack


def through_json(value):
    arrays = {}
    packed = json.loads(json.dumps(pack(value, "state", arrays), allow_nan=False))
    return unpack(packed, arrays)


leaf = st.none() | st.booleans() | st.integers() | st.text() | st.binary()
key = st.text() | st.integers() | st.booleans() | st.tuples(st.integers(), st.text())
nested = st.recursive(
    leaf | st.floats(allow_nan=False),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(key, inner, max_size=3)
        | st.dictionaries(st.sampled_from(["$", "value", "$dict"]), inner, max_size=3)
    ),
    max_leaves=12,
)


def shape_of(value):
    """Types as well as values: True is not 1, a tuple is not a list, -0.0 is not 0.0."""
    if isinstance(value, dict):
        return ["dict", [[shape_of(k), shape_of(v)] for k, v in value.items()]]
    if isinstance(value, (list, tuple)):
        return [type(value).__name__, [shape_of(v) for v in value]]
    if isinstance(value, float):
        return ["float", struct.pack("<d", value)]
    return [type(value).__name__, value]


@given(nested)
def test_every_value_comes_back_with_its_type_and_order(value):
    assert shape_of(through_json(value)) == shape_of(value)


def test_floats_that_json_has_not():
    back = through_json([math.nan, math.inf, -math.inf, -0.0, 5e-324])
    assert math.isnan(back[0])
    assert back[1:3] == [math.inf, -math.inf]
    assert math.copysign(1, back[3]) == -1.0
    assert back[4] == 5e-324


def test_arrays_and_scalars_keep_dtype_and_bits():
    state = {0: {"exp_avg": np.array([1.5, np.nan], np.float32)}, "t": np.float64(0.1)}
    back = through_json(state)
    assert back[0]["exp_avg"].dtype == np.float32
    assert back[0]["exp_avg"].tobytes() == state[0]["exp_avg"].tobytes()
    assert type(back["t"]) is np.float64
    assert back["t"] == np.float64(0.1)


def test_equal_paths_do_not_collide():
    back = through_json({"a": {"b": np.array([1])}, "a/b": np.array([2])})
    assert back["a"]["b"].tolist() == [1]
    assert back["a/b"].tolist() == [2]


def test_a_mapping_of_another_type_comes_back_as_a_dict():
    assert through_json(OrderedDict(b=1, a=2)) == {"b": 1, "a": 2}


@pytest.mark.parametrize("value", [object(), {1, 2}, lambda: 0, 1j])
def test_what_cannot_be_saved_is_named_by_place(value):
    with pytest.raises(UsageError, match="state/optimizer/1"):
        pack({"optimizer": [0, value]}, "state", {})


def test_arrays_can_be_refused():
    with pytest.raises(UsageError, match="meta/x: an array"):
        pack({"x": np.zeros(2)}, "meta", None)


@pytest.mark.parametrize(
    "packed",
    [
        {"$": "array", "value": "nowhere"},
        {"$": "object", "value": "os.system"},
        {"$": "float", "value": "1e5"},
        {"$": "dict", "value": [[1]]},
        {"$": "dict", "value": [3]},
        {"$": "dict", "value": [[[1], 2]]},
        {"$": "tuple"},
        {"$": []},
    ],
)
def test_hostile_json_is_a_typed_error(packed):
    with pytest.raises(FileFormatError):
        unpack(packed, {})
