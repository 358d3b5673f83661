"""The names of our keys, and that they lie in the stream's slot of a cluster."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.crc import key_slot

from streamworker.errors import SetupError
from streamworker.streams.keys import GroupKeys, has_tag, keys_of, tag

NAMES = st.text(st.sampled_from("ab{}:"), min_size=1) | st.text(st.characters(exclude_categories=["Cs"]), min_size=1)


def test_the_keys_of_a_group_have_the_names_that_are_documented() -> None:
    """Operators look at them with redis-cli."""
    assert GroupKeys(
        stream="orders",
        due="{orders}:due:billing",
        parked="{orders}:parked:billing",
        retry="{orders}:retry:billing",
        dead_letters="{orders}:dlq:billing",
        sweep="{orders}:sw:sweep:billing",
        settled="{orders}:sw:settled:billing",
        known="{orders}:sw:known:billing",
        paused="{orders}:sw:paused:billing",
    ) == keys_of("orders", "billing")


def test_a_name_that_has_a_tag_keeps_it() -> None:
    """Or its keys would lie in another slot."""
    assert "shop:{eu}:orders:due:billing" == keys_of("shop:{eu}:orders", "billing").due


@given(NAMES, NAMES)
def test_all_keys_lie_in_the_streams_slot(stream: str, group: str) -> None:
    """Or the name is refused, because no tag can put them there."""
    try:
        keys = keys_of(stream, group)
    except SetupError:
        assert "}" in stream
        return

    assert {key_slot(stream.encode())} == {key_slot(key.encode()) for key in keys.all}


@given(NAMES, NAMES)
def test_two_groups_share_no_key_but_the_stream(one: str, other: str) -> None:
    """What one parks, the other never sees."""
    if one == other:
        return

    assert {"orders"} == set(keys_of("orders", one).all) & set(keys_of("orders", other).all)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("orders", False),
        ("{orders}", True),
        ("a{b}c", True),
        ("{}a", False),
        ("{a", False),
        ("a}", False),
        ("{}{a}", False),
        ("}{a}", True),
    ],
)
def test_a_tag_is_what_a_cluster_takes_for_one(name: str, expected: bool) -> None:
    """The first opening brace, at least one character, a closing brace."""
    assert expected == has_tag(name)


@pytest.mark.parametrize("name", ["a}b", "}", "{}x", "{}{a}"])
def test_a_name_that_no_tag_can_hold_is_refused(name: str) -> None:
    """With the repair."""
    with pytest.raises(SetupError, match=r"closing brace but no hash tag: rename it, or give it one"):
        tag(name)
