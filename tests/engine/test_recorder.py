"""Followers get every event once, in order, and end when their deployment is gone."""

import asyncio
import logging

import pytest

from prsmd.domain.events import Event, Severity
from tests.engine.harness import Life
from tests.gateway.backends import until


def event(deployment: str, message: str, severity: Severity = Severity.NORMAL) -> Event:
    return Event(
        deployment_id=deployment,
        organization="default",
        reason="Told",
        message=message,
        at=1.0,
        severity=severity,
    )


async def test_a_follower_gets_what_was_before_and_what_comes_in_order(life: Life) -> None:
    deployment = await life.deploy()
    recorder = life.appliance.parts.recorder
    followed = recorder.follow(deployment, 0)
    assert (await anext(followed)).reason == "Deployed"
    waiting = asyncio.ensure_future(anext(followed))
    await recorder.record(event(deployment, "one"), event(deployment, "two"))

    assert (await waiting).message == "one"
    assert (await anext(followed)).message == "two"
    await followed.aclose()


async def test_a_follower_starts_after_the_sequence_it_names(life: Life) -> None:
    deployment = await life.deploy()
    recorder = life.appliance.parts.recorder
    await recorder.record(event(deployment, "one"), event(deployment, "two"))
    known = (await life.events(deployment))[1]
    followed = recorder.follow(deployment, known.sequence)

    assert (await anext(followed)).message == "two"
    await followed.aclose()


async def test_a_follower_ends_when_the_deployment_is_gone(life: Life) -> None:
    deployment = await life.deploy()
    await life.settle()

    async def collect() -> list[str]:
        return [one.reason async for one in life.appliance.parts.recorder.follow(deployment, 0)]

    following = asyncio.create_task(collect(), name="follower")
    await life.delete()
    await life.settle()

    reasons = await following
    assert reasons[:4] == ["Deployed", "Scheduled", "Started", "Ready"]
    assert "DeleteRequested" in reasons


async def test_many_followers_hold_no_recorder_back_and_all_hear(life: Life) -> None:
    deployment = await life.deploy()
    recorder = life.appliance.parts.recorder
    heard: list[str] = []

    async def follow() -> None:
        async for one in recorder.follow(deployment, 0):
            heard.append(one.message)  # noqa: PERF401 - heard while the stream goes on

    tasks = [asyncio.create_task(follow(), name=f"follower:{n}") for n in range(50)]
    await until(lambda: len(heard) == 50)
    for number in range(3):
        await recorder.record(event(deployment, f"event {number}"))

    await until(lambda: heard.count("event 2") == 50)
    assert heard.count("event 0") == heard.count("event 1") == 50
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_what_is_recorded_between_looking_and_waiting_is_not_missed(life: Life) -> None:
    deployment = await life.deploy()
    recorder = life.appliance.parts.recorder
    changed = recorder.changed(deployment)
    await recorder.record(event(deployment, "meanwhile"))

    assert changed.is_set()
    assert not recorder.changed(deployment).is_set()


async def test_an_event_reaches_the_log_with_its_words_and_fields(
    life: Life, caplog: pytest.LogCaptureFixture
) -> None:
    deployment = await life.deploy()
    with caplog.at_level(logging.INFO, "prsmd.events"):
        await life.appliance.parts.recorder.record(
            event(deployment, "calm"), event(deployment, "grave", Severity.WARNING)
        )

    calm, grave = caplog.records[-2:]
    assert (calm.message, calm.levelno) == ("calm", logging.INFO)
    assert (grave.message, grave.levelno) == ("grave", logging.WARNING)
    assert vars(grave)["deployment"] == deployment
