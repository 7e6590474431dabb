from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from brain.session.rate_limiter import RESTED_SECONDS, RateLimiter
from brain.session.token_bucket import TokenBucket


def test_a_burst_of_twice_the_rate_is_allowed() -> None:
    bucket = TokenBucket(per_second=10)

    assert [bucket.take(1000.0) >= 0 for _ in range(21)] == [True] * 20 + [False]


def test_a_bucket_refills_at_its_rate_up_to_the_burst() -> None:
    bucket = TokenBucket(per_second=10)
    while bucket.take(1000.0) >= 0:
        pass

    assert [bucket.take(1000.35) >= 0 for _ in range(4)] == [True, True, True, False]
    assert [bucket.take(9000.0) >= 0 for _ in range(21)] == [True] * 20 + [False]


# Pauses of which sums are exact, and sizes.
SENT = st.lists(st.tuples(st.integers(0, 64).map(lambda n: n / 64), st.integers(0, 300)))


@given(SENT, SENT)
def test_a_rate_limiter_that_has_rested_is_as_good_as_new(
    before: list[tuple[float, int]], after: list[tuple[float, int]]
) -> None:
    used, now = RateLimiter(4, 100), 1000.0
    for pause, size in before:
        now += pause
        used.allows(size, now)
    now += RESTED_SECONDS
    new = RateLimiter(4, 100)

    for pause, size in after:
        now += pause
        assert used.allows(size, now) == new.allows(size, now)
        assert used.is_warning_due == new.is_warning_due
