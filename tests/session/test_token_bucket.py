from __future__ import annotations

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
