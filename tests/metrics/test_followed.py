"""Counters and histograms that follow plain numbers."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter

from brain.metrics.followed import Followed, FollowedHistogram


def values(registry: CollectorRegistry) -> dict[tuple[str, ...], float]:
    return {
        (sample.name, *sample.labels.values()): sample.value
        for metric in registry.collect()
        for sample in metric.samples
        if not sample.name.endswith("_created")
    }


def test_a_counter_grows_by_what_its_number_has_grown() -> None:
    registry = CollectorRegistry()
    followed = Followed(Counter("things_total", "Things.", ["kind"], registry=registry))
    followed.follow_all({"a": 0, "b": 3})
    followed.follow_all({"a": 2, "b": 3})
    assert values(registry) == {("things_total", "a"): 2, ("things_total", "b"): 3}


def test_a_number_that_begins_anew_never_takes_its_counter_back() -> None:
    registry = CollectorRegistry()
    followed = Followed(Counter("things_total", "Things.", registry=registry))
    for number in (5, 2, 3):
        followed.follow(number)
    assert values(registry) == {("things_total",): 5 + 2 + 1}


def test_durations_are_shown_as_if_each_had_been_observed() -> None:
    registry = CollectorRegistry()
    followed = FollowedHistogram(registry, "wait_seconds", "Waiting.", (0.1, 1.0))
    for seconds in (0.05, 0.1, 0.5):
        followed.note(seconds)
    followed.follow()
    followed.note(7.0)
    followed.note(-3.0)  # by two clocks
    followed.follow()
    followed.follow()
    assert values(registry) == {
        ("wait_seconds_bucket", "0.1"): 3,
        ("wait_seconds_bucket", "1.0"): 4,
        ("wait_seconds_bucket", "+Inf"): 5,
        ("wait_seconds_count",): 5,
        ("wait_seconds_sum",): 7.65,
    }
