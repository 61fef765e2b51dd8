"""Plans as data: what is wrong in a nest is told with its place."""

from typing import Any

import pytest

from fairlead.errors import ConfigError
from fairlead.plans.base import decode, name_of

STRAY: dict[str, Any] = {"kind": "vote", "members": ["a", {"kind": "nope"}]}


@pytest.mark.parametrize(
    ("data", "path", "said"),
    [
        ({"kind": "fallback", "plans": ["a", {"kind": "nope"}]}, "$.plans[1].kind", "unknown name in plans"),
        ({"kind": "fallback", "plans": ["a", STRAY]}, "$.plans[1].members[1].kind", "unknown name in plans"),
        ({"kind": "within", "plan": {"kind": "vote", "members": ["a"], "samples": 0}, "calls": 1}, "$.plan", "samples"),
        ({"kind": "vote", "members": ["a"], "samples": "x"}, "$.samples", "Expected `int`"),
        ({"kind": "vote", "members": 3}, "$.members", "Expected `array`"),
        ({"kind": "vote"}, "$", "missing required field"),
        (7, "$", "a plan is"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(data: Any, path: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        decode(data)
    assert caught.value.path == path
    assert said in caught.value.message
    with pytest.raises(ConfigError) as caught:
        decode(data, path="$.routes.auto")
    assert caught.value.path == "$.routes.auto" + path.removeprefix("$")


def test_names_for_people() -> None:
    assert name_of(decode("a")) == "a"
    assert name_of(decode({"kind": "vote", "members": ["a", "b"]})) == "vote: a, b"
