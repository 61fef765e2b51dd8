from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.component import LARGE, Component, digest, pack, pack_apart, unpack, unpack_apart
from fairlead.errors import StateError
from fairlead.objective import Objective


class Part(Component):
    family: ClassVar[str] = "parts"

    def __init__(self, *, size: int = 2) -> None:
        self.size = size
        self.seen_: int = 0


class Whole(Component):
    family: ClassVar[str] = "wholes"

    def __init__(
        self,
        *,
        part: Part,
        named: dict[str, Part] | None = None,
        row: tuple[Part, ...] = (),
        objective: Objective = Objective(),  # noqa: B008
    ) -> None:
        self.part = part
        self.named = named
        self.row = row
        self.objective = objective
        self.array_ = np.zeros((2, 3))
        self._cache = object()


def whole() -> Whole:
    return Whole(part=Part(), named={"x": Part(size=3)}, row=(Part(size=4), Part(size=5)))


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=12,
)


@given(values)
def test_pack_and_unpack(value: Any) -> None:
    assert unpack(pack(value)) == value
    assert pack(unpack(pack(value))) == pack(value)


@pytest.mark.parametrize("dtype", ["<f8", "<f4", "<i8", "|b1"])
def test_arrays_come_back_as_they_went_and_can_be_written(dtype: str) -> None:
    for shape in ((), (0,), (3,), (2, 3)):
        array = np.arange(int(np.prod(shape))).reshape(shape).astype(dtype)
        back = unpack(pack({"a": array}))["a"]
        assert back.dtype == array.dtype
        assert back.shape == shape
        assert np.array_equal(back, array)
        back[...] = back
    turned = np.arange(6.0).reshape(2, 3).T
    assert np.array_equal(unpack(pack(turned)), turned)


def test_large_arrays_are_kept_apart_and_come_back() -> None:
    large, turned = np.arange(LARGE, dtype=np.uint8), np.arange(2.0 * LARGE).reshape(2, -1).T
    small = np.zeros(LARGE - 1, dtype=np.uint8)
    state = {"a_": {"x": [large, 1.5, np.append(large, large[:1])]}, "b_": turned, "c_": small, "d_": turned}
    body, apart = pack_apart(state)
    assert len(apart) == 2, "what is there twice is kept once"
    assert all(digest(data) == name for name, data in apart.items())
    assert len(body) < 3 * LARGE
    back = unpack_apart(body, apart.__getitem__)
    assert pack(back) == pack(state)
    back["b_"][0] = 1.0
    assert unpack_apart(pack(state), apart.__getitem__).keys() == state.keys()
    with pytest.raises(StateError, match="not packed state"):
        unpack(body)
    with pytest.raises(StateError, match="not packed state"):
        unpack_apart(body[:-1], apart.__getitem__)
    with pytest.raises(StateError, match="cannot be stored"):
        pack_apart({"x": object()})


def test_the_order_of_keys_does_not_change_the_bytes() -> None:
    assert pack({"a": 1, "b": 2}) == pack({"b": 2, "a": 1})
    assert digest(pack({"a": 1})) != digest(pack({"a": 2}))


def test_what_is_not_state_is_refused() -> None:
    for value in (object(), lambda: 1, np.array([object()])):
        with pytest.raises(StateError, match="cannot be stored"):
            pack({"x": value})


def test_spec_and_state_enter_nested_components() -> None:
    spec, state = whole().spec(), whole().state()
    assert spec["part"]["size"] == 2
    assert spec["named"]["x"]["size"] == 3
    assert [p["size"] for p in spec["row"]] == [4, 5]
    assert spec["objective"]["usd_weight"] == 0.0
    assert set(state) == {"array_", "part", "named", "row"}
    assert state["named"] == {"x": {"seen_": 0}}
    assert set(state["row"]) == {"0", "1"}


def test_state_goes_where_it_came_from() -> None:
    one, other = whole(), whole()
    one.array_[0, 0] = 1.0
    one.part.seen_, one.row[1].seen_ = 5, 7
    assert one.named is not None
    one.named["x"].seen_ = 6
    assert one.digest() != other.digest()
    other.load(unpack(pack(one.state())))
    assert other.digest() == one.digest()
    assert (other.part.seen_, other.row[1].seen_) == (5, 7)


def test_state_that_fits_nothing_is_refused() -> None:
    with pytest.raises(StateError, match="nothing named 'stranger'"):
        whole().load({"stranger": {}})


def test_a_copy_is_independent() -> None:
    one = whole()
    copy = one.copy()
    assert copy.digest() == one.digest()
    copy.array_[0, 0] = 1.0
    copy.part.seen_ = 1
    assert one.part.seen_ == 0
    assert one.array_[0, 0] == 0.0


class Offline(Part):
    online: ClassVar[bool] = False


class Holder(Component):
    family: ClassVar[str] = "holders"
    __slots__ = ("_made",)
    _made: list[int]

    def __init__(self, *, prior: Part, other: Part, more: tuple[Part, ...] = ()) -> None:
        self.prior = prior
        self.other = other
        self.more = more

    @property
    def still(self) -> tuple[str, ...]:
        return ("prior",)


def test_a_copy_to_teach_shares_what_is_never_taught() -> None:
    one = Holder(prior=Part(), other=Part(), more=(Offline(), Part()))
    copy = one.copy_to_teach()
    assert copy.prior is one.prior
    assert copy.more[0] is one.more[0]
    assert copy.other is not one.other
    assert copy.more[1] is not one.more[1]
    inside = Whole(part=one.other, row=(one.prior,)).copy_to_teach()
    assert inside.part is not one.other
    plain = one.copy()
    assert plain.prior is not one.prior
    assert plain.more[0] is not one.more[0]


def test_what_is_taught_at_one_place_is_not_shared_at_another() -> None:
    part = Part()
    copy = Holder(prior=part, other=part).copy_to_teach()
    assert copy.other is not part
    copy.other.seen_ = 1
    assert part.seen_ == 0


def test_a_slot_may_be_filled_while_a_copy_is_made_and_is_no_part_of_it() -> None:
    one = Holder(prior=Part(), other=Part())
    before = list(vars(one))
    one._made = [1]
    assert list(vars(one)) == before
    for copy in (one.copy(), one.copy_to_teach()):
        assert copy.digest() == one.digest()
        with pytest.raises(AttributeError):
            _ = copy._made


def test_merge_says_that_it_cannot() -> None:
    with pytest.raises(StateError, match="cannot be merged"):
        whole().merge(whole())
    with pytest.raises(StateError, match="of other arguments"):
        whole().merge(Whole(part=Part(size=9)))
    with pytest.raises(StateError, match="of other arguments"):
        whole().merge(Part())  # type: ignore[arg-type]


def test_repr_reads_like_the_call() -> None:
    assert repr(Part(size=3)) == "Part(size=3)"


class Learner(Component):
    family: ClassVar[str] = "learners"
    weights_: list[float]

    def __init__(self, *, part: Part) -> None:
        self.part = part
        self.count_ = 0


@pytest.mark.parametrize(
    "state",
    [
        {"count_": 3, "garbage_": 1},
        {"count_": 3, "__class__": Part},
        {"count_": 3, "_": 1},
        {"count_": 3, "part": {"garbage_": 1}},
        {"count_": 3, "part": 5},
    ],
)
def test_what_was_never_learned_here_is_refused_and_nothing_is_taken(state: dict[str, Any]) -> None:
    one = Learner(part=Part())
    with pytest.raises(StateError):
        one.load(state)
    assert one.state() == {"count_": 0, "part": {"seen_": 0}}
    with pytest.raises(StateError, match="named"):
        whole().load({"named": {"y": {"seen_": 1}}})
    with pytest.raises(StateError, match="row"):
        whole().load({"row": {"7": {"seen_": 1}}})


def test_what_was_declared_but_not_learned_yet_is_taken_and_what_is_missing_goes_back() -> None:
    one = Learner(part=Part())
    untaught = one.state()
    one.load({"weights_": [1.0], "count_": 3, "part": {"seen_": 2}})
    assert (one.weights_, one.count_, one.part.seen_) == ([1.0], 3, 2)
    one.load(untaught)
    assert one.state() == untaught
    one.load({"weights_": [1.0], "count_": 3, "part": {"seen_": 2}})
    one.load({"weights_": [2.0]})
    assert one.state() == {"weights_": [2.0], "count_": 0, "part": {"seen_": 0}}


def test_a_digest_is_long_enough_to_prove_something() -> None:
    assert len(whole().digest()) == 32
