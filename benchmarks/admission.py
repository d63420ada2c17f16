"""What authentication, permission, a share's limit, usage and audit add to one inference, in µs.

Measured on the functions that the data path calls, as processor time, with 10 and with 10,000 keys,
models and shares. Ten of them are at work at a time, as many there as here, and take turns; after
200 inferences it is the turn of ten others, until all had theirs. `us_10000_cold` is what it comes
to when every inference is by another key on another model than the 9,999 before: what that adds is
the processor's waiting for memory. Blocks of limits are leased from a real store between batches,
outside of what is measured, as another task does it. What counts is the quarter of the rounds that
other programs disturbed least.
"""

import argparse
import asyncio
import dataclasses
import gc
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from prsmd.core.apikey import ID_LENGTH, SECRET_LENGTH, format_key, key_digest
from prsmd.core.routes import Route, RoutingTable
from prsmd.domain.access import ApiKey, ModelRef, Permission
from prsmd.domain.ids import random_id
from prsmd.domain.quota import Share, UsageLimits
from prsmd.domain.spec import Serving
from prsmd.engine.lessor import Lessor
from prsmd.gateway.infer import Gateway, Inference, InferenceResult, Outcome
from prsmd.gateway.meters import Held
from prsmd.gateway.tape import Tape
from prsmd.gateway.uses import Uses
from prsmd.service.access import KeyRing
from prsmd.service.caller import Caller
from prsmd.service.directory import Directory
from prsmd.service.inference import Inferences
from prsmd.service.lending import Lendings
from prsmd.service.throttle import Throttle
from prsmd.store.db import Database

_BATCH = 200  # inferences between two looks at what is to be leased or flushed
_AT_WORK = 10  # keys in one batch
_LIMITS = UsageLimits(requests_per_day=10**9, total_requests=10**10, concurrent_requests=1000)


@dataclasses.dataclass(frozen=True)
class Site:
    """So many keys, models and shares, connected as the daemon connects them."""

    ring: KeyRing
    inferences: Inferences
    lessor: Lessor
    uses: Uses
    tape: Tape
    texts: list[str]
    models: list[str]
    asked: list[Inference]
    shares: list[Share]
    database: Database


def main() -> int:
    """Measure and report."""
    options = _options()
    report = asyncio.run(_measure(options))
    text = json.dumps(report, indent=2)
    print(text)
    if options.json:
        options.json.write_text(text + "\n")
    return 0


async def _measure(options: argparse.Namespace) -> dict[str, object]:
    with tempfile.TemporaryDirectory() as scratch:
        few = await _site(10, Path(scratch) / "few")
        many = await _site(10_000, Path(scratch) / "many")
        cases = ((few, _AT_WORK), (many, _AT_WORK), (many, _BATCH))
        rounds: list[list[float]] = [[] for _ in cases]
        for site in (few, many):
            await _first_blocks(site)
            await _round(site, options.inferences, _AT_WORK)
        gc.collect()
        gc.freeze()
        for _ in range(options.rounds):
            for seconds, (site, at_work) in zip(rounds, cases, strict=True):
                seconds.append(await _round(site, options.inferences, at_work))
        for site in (few, many):
            await site.database.close()
    us = [statistics.quantiles(seconds, n=4)[0] * 1e6 for seconds in rounds]
    return {
        "us_10": round(us[0], 2),
        "us_10000": round(us[1], 2),
        "us_10000_cold": round(us[2], 2),
        "ratio": round(us[1] / us[0], 3),
        "rounds": options.rounds,
        "inferences": options.inferences,
    }


async def _round(site: Site, count: int, at_work: int) -> float:
    """Return how many seconds one inference takes, of so many, with so many keys at a time."""
    spent, size = 0.0, len(site.texts)
    for batch in range(count // _BATCH):
        turns = [(batch * at_work + turn % at_work) % size for turn in range(_BATCH)]
        began = time.thread_time()
        for turn in turns:
            _admit(site, site.texts[turn], site.models[turn], site.asked[turn])
        spent += time.thread_time() - began
        if site.lessor.meters.wanted.is_set():
            await site.lessor.serve()
        site.uses.take(_BATCH)
        site.tape.take(_BATCH)
    return spent / count


def _admit(site: Site, text: str, model: str, inference: Inference) -> None:
    """Do all that one inference costs besides finding a replica and asking it."""
    identified = site.ring.identify(text)
    caller = Caller(identified.principal, "req_0123456789abcdef")
    try:
        site.inferences.infer(caller, model, inference).send(None)
    except StopIteration:
        return
    raise RuntimeError("an inference had to wait")


class _Answered:
    """A passage that was answered."""

    answer = None
    reached = True
    revision = 1


class _NoExchange(Gateway):
    """The gateway without pools and containers: what was admitted has been answered."""

    async def infer(
        self, route: Route, inference: Inference, held: Sequence[Held] = ()
    ) -> InferenceResult:
        for each in held:
            each.end(counts=True)
        self._note(route, inference, Outcome.OK, _Answered(), 0.01)
        return _RESULT


_RESULT = InferenceResult(outputs=None, inference_time_ms=1.0, replica_id="r", model_version="1")


async def _site(size: int, folder: Path) -> Site:
    database = await Database.open(folder)
    lessor = await Lessor.begin(database)
    pepper = b"p" * 32
    texts, keys = [], []
    for number in range(size):
        secret, key_id = random_id("", SECRET_LENGTH)[1:], random_id("", ID_LENGTH)[1:]
        texts.append(format_key(key_id, secret))
        keys.append(
            ApiKey(
                id=key_id,
                organization=f"borrower-{number}",
                role="invoker",
                name=f"key {number}",
                digest=key_digest(pepper, secret),
                created_at=time.time(),
            )
        )
    models = [ModelRef(f"deploy_{n}", f"custom_model_{n}", f"model-{n}") for n in range(size)]
    tape = Tape(capacity=2 * _BATCH)
    uses = Uses(tape)
    gateway = _NoExchange(notes=uses)
    gateway.publish(RoutingTable({model.deployment_id: _route(model) for model in models}))
    shares = [_share(number, model) for number, model in enumerate(models)]
    lendings = Lendings(lessor.meters, zip(shares, models, strict=True))
    directory = Directory(keys)
    throttle = Throttle(directory, lessor.meters)
    return Site(
        ring=KeyRing(pepper, directory),
        inferences=Inferences(gateway, database, lendings, throttle),
        lessor=lessor,
        uses=uses,
        tape=tape,
        texts=texts,
        models=[model.model_id for model in models],
        asked=[_asked(key) for key in keys],
        shares=shares,
        database=database,
    )


def _asked(key: ApiKey) -> Inference:
    return Inference(
        inputs=b"null", request_id="req_1", client=f"key:{key.id}", organization=key.organization
    )


def _route(model: ModelRef) -> Route:
    return Route(
        deployment_id=model.deployment_id,
        organization="owner",
        model_id=model.model_id,
        model_name=model.model_name,
        model_type="text",
        version="1.0.0",
        revision=1,
        serving=Serving(),
        targets=(),
    )


def _share(number: int, model: ModelRef) -> Share:
    return Share(
        id=f"share_{number}",
        deployment_id=model.deployment_id,
        organization="owner",
        organizations=frozenset({f"borrower-{number}"}),
        permissions=frozenset({Permission.MODELS_READ, Permission.MODELS_INFER}),
        limits=_LIMITS,
        created_at=time.time(),
    )


async def _first_blocks(site: Site) -> None:
    """Have every meter hold a block, as in a day that has begun."""
    for share in site.shares:
        meter = site.lessor.meters.meter(
            f"{share.id}/{next(iter(share.organizations))}", share.limits
        )
        meter.take(time.time())
        site.lessor.meters.lease(meter)
    await site.lessor.serve()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench admission")
    parser.add_argument("--json", type=Path, help="write the report here too")
    parser.add_argument("--rounds", type=int, default=15, help="how many to measure")
    parser.add_argument("--inferences", type=int, default=20_000, help="in each round")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
