"""How many requests a key may make: exactly its limits, whichever is tighter."""

import pytest

from prsmd.domain.access import ApiKey
from prsmd.domain.errors import RateLimitedError
from prsmd.service.throttle import Allowance, Throttle

MIDNIGHT = 1_700_006_400.0  # a multiple of 86 400 seconds


class Clock:
    def __init__(self, now=MIDNIGHT + 10):
        self.now = now

    def __call__(self):
        return self.now


def key(name="k", **limits):
    return ApiKey(
        id=name, organization="o", role="viewer", name="n", digest=b"", created_at=0.0, **limits
    )


async def admitted(throttle, held, times):
    passed = 0
    for _ in range(times):
        try:
            await throttle.admit(held)
        except RateLimitedError:
            continue
        passed += 1
    return passed


async def test_a_key_without_limits_is_not_counted():
    assert await Throttle().admit(key()) is None


async def test_a_minute_and_a_day_have_exactly_as_many_as_they_may():
    clock = Clock()
    throttle = Throttle(clock=clock)
    assert await admitted(throttle, key(requests_per_minute=7), 20) == 7
    assert await admitted(throttle, key("day", requests_per_day=5), 20) == 5
    clock.now += 86_400
    assert await admitted(throttle, key(requests_per_minute=7), 20) == 7
    assert await admitted(throttle, key("day", requests_per_day=5), 20) == 5


async def test_what_one_key_uses_is_not_taken_from_another():
    throttle = Throttle(clock=Clock())
    assert await admitted(throttle, key("a", requests_per_day=2), 5) == 2
    assert await admitted(throttle, key("b", requests_per_day=2), 5) == 2


async def test_what_a_minute_refuses_is_not_counted_of_the_day():
    clock = Clock()
    throttle = Throttle(clock=clock)
    held = key(requests_per_minute=1, requests_per_day=2)
    assert await admitted(throttle, held, 10) == 1
    clock.now += 61
    assert await admitted(throttle, held, 10) == 1
    clock.now += 61
    assert await admitted(throttle, held, 10) == 0


async def test_what_a_day_refuses_is_not_counted_of_the_minute():
    clock = Clock(MIDNIGHT + 86_399.5)
    throttle = Throttle(clock=clock)
    held = key(requests_per_minute=3, requests_per_day=2)
    assert await admitted(throttle, held, 10) == 2
    clock.now += 1
    assert (await throttle.admit(held)).remaining == 0, "one of three was left of the minute"


@pytest.mark.parametrize(
    ("limits", "left"),
    [
        ({"requests_per_minute": 10, "requests_per_day": 3}, Allowance(3, 2, MIDNIGHT + 86_400)),
        ({"requests_per_minute": 2, "requests_per_day": 50}, Allowance(2, 1, MIDNIGHT + 40)),
    ],
)
async def test_the_tighter_limit_is_told(limits, left):
    assert await Throttle(clock=Clock()).admit(key(**limits)) == left


async def test_a_refusal_says_which_limit_and_when_the_next_one_passes():
    throttle = Throttle(clock=Clock())
    held = key(requests_per_day=1)
    await throttle.admit(held)
    with pytest.raises(RateLimitedError) as refusal:
        await throttle.admit(held)
    details = refusal.value.details
    assert (details["limit_type"], details["limit"]) == ("requests_per_day", 1)
    assert details["reset_time"] == MIDNIGHT + 86_400
    assert details["retry_after_seconds"] == 86_390


async def test_a_limit_that_is_changed_counts_anew():
    throttle = Throttle(clock=Clock())
    assert await admitted(throttle, key(requests_per_minute=2), 5) == 2
    assert await admitted(throttle, key(requests_per_minute=3), 5) == 3
