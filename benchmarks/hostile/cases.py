"""The hostile request kinds: who sends what.

A case is one row. Its plan is made when it is its turn, from the site's keys, and holds every byte
that will be sent. The counts are such that the senders need little of the processor.
"""

import dataclasses
import itertools
import random
from collections.abc import Callable, Sequence

from benchmarks.hostile import payloads
from benchmarks.hostile.payloads import MIB, as_json, head, request
from benchmarks.hostile.senders import Answers, Plan
from benchmarks.hostile.site import Site, model_body
from prsmd.core.apikey import ID_LENGTH, SECRET_LENGTH, format_key

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_DEPLOY = "POST /v1/custom-models/deploy"
_SCALE = "POST /v1/custom-models/hostile/scale"
_INFER = "POST /v1/models/hostile/infer"
_NOBODY = "unauthenticated"
_WEAKEST = "weakest key"
_OWNER = "tenant's owner"


@dataclasses.dataclass(frozen=True, slots=True)
class Case:
    """One hostile request kind, from one position."""

    name: str
    position: str
    plan: Callable[[Site], Plan]


def _with_bombs(line: str, role: str | None) -> Callable[[Site], Plan]:
    def plan(site: Site) -> Plan:
        key = None if role is None else site.keys[role]
        made = [
            request(line, key, payloads.gzip_bomb(), "Content-Encoding: gzip"),
            request(line, key, payloads.deflate_bomb(), "Content-Encoding: deflate"),
        ]
        return Plan(requests=made, connections=6, reuse=False)

    return plan


def _with_worst_json(line: str, role: str | None, field: str) -> Callable[[Site], Plan]:
    def plan(site: Site) -> Plan:
        key = None if role is None else site.keys[role]
        bodies = payloads.worst_json(field)
        return Plan(
            requests=[request(line, key, body) for body in bodies],
            connections=4,
            count=2 * len(bodies),
        )

    return plan


def _flood(
    line: str, role: str | None, body: bytes = b"", *, count: int = 200, connections: int = 16
) -> Callable[[Site], Plan]:
    """Return a plan of so many equal requests on each connection."""

    def plan(site: Site) -> Plan:
        key = None if role is None else site.keys[role]
        return Plan(requests=[request(line, key, body)], connections=connections, count=count)

    return plan


def _followers(line: str, role: str, *more: str) -> Callable[[Site], Plan]:
    def plan(site: Site) -> Plan:
        path = line.replace("DEPLOYMENT", site.deployments["hostile"])
        made = request(path, site.keys[role], b"", "Accept: text/event-stream", *more)
        return Plan(requests=[made], connections=2000, held=True)

    return plan


def _unread(line: str, role: str, body: bytes, *more: str) -> Callable[[Site], Plan]:
    def plan(site: Site) -> Plan:
        made = request(line, site.keys[role], body, *more)
        return Plan(requests=[made], connections=64, answers=Answers.UNREAD, held=True)

    return plan


def _asking(what: str, *, connections: int = 8, count: int = 2) -> Callable[[Site], Plan]:
    """Return a plan of inferences that have the tenant's own model do something."""

    def plan(site: Site) -> Plan:
        made = request(_INFER, site.keys["invoker"], _do(what))
        return Plan(requests=[made], connections=connections, count=count)

    return plan


def _pipelined(line: str, role: str | None) -> Callable[[Site], Plan]:
    def plan(site: Site) -> Plan:
        key = None if role is None else site.keys[role]
        many = b"".join(request(line, key)) * 500
        return Plan(
            requests=[(many,)], connections=8, count=10, answers=Answers.PIPELINED, held=True
        )

    return plan


def _do(what: str) -> bytes:
    """Return an inference's body that has the tenant's own model do something."""
    return as_json({"inputs": {"do": what}})


def _harmless(_: Site) -> Plan:
    return Plan(requests=[request("GET /healthz", None)], connections=8, count=300)


def _slow_heads(_: Site) -> Plan:
    begin = head("GET /v1/models", None) + b"X-Slow: "
    return Plan(
        requests=[(begin, *([b"x"] * 100))], connections=1000, trickle_seconds=0.1, held=True
    )


def _slow_bodies(site: Site) -> Plan:
    made = payloads.trickled(_INFER, site.keys["invoker"], 15 * MIB, 4 * MIB, 100)
    return Plan(requests=[made], connections=200, trickle_seconds=0.1, held=True)


def _idle_sockets(_: Site) -> Plan:
    return Plan(requests=[(b"",)], connections=2000, answers=Answers.UNREAD, held=True)


def _huge_headers(_: Site) -> Plan:
    made = [
        request("GET /healthz", None, b"", "X-Large: " + "x" * 15_000),
        request("GET /healthz", None, b"", "X-Large: " + "x" * MIB),
        request("GET /healthz", None, b"", *(f"X-{n}: v" for n in range(20_000))),
        request("GET /healthz", None, b"", "Cookie: " + "; ".join(f"c{n}=v" for n in range(1500))),
        request("GET /healthz", None, b"", *["A:"] * 4000),
        request("GET /healthz?" + "&".join(f"a{n}=" for n in range(2000)), None),
        request("GET /" + "%2e/" * 3000, None),
    ]
    return Plan(requests=made, connections=8, count=50, reuse=False)


def _tiny_chunks(line: str, role: str | None) -> Callable[[Site], Plan]:
    def plan(site: Site) -> Plan:
        key = None if role is None else site.keys[role]
        begin = head(line, key, "Content-Type: application/json", "Transfer-Encoding: chunked")
        chunks = b"1\r\n \r\n" * (2 * MIB)
        return Plan(requests=[(begin + b"\r\n", chunks, b"0\r\n\r\n")], connections=6, reuse=False)

    return plan


def _malformed(_: Site) -> Plan:
    made = [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",),
        (b"GET / HTTP/9.9\r\nHost: localhost\r\n\r\n",),
        (b"GET /\x00 HTTP/1.1\r\n\r\n",),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",),
        (b"GET / HTTP/1.1\r\n" + b"\xff" * 10_000 + b"\r\n\r\n",),
        request("GET /healthz", None, b"", "Expect: nothing"),
        request("POST /v1/models/none/infer", None, b"x", "Expect: 100-continue"),
    ]
    return Plan(requests=made, connections=16, count=100, reuse=False)


def _unknown_keys(_: Site) -> Plan:
    chosen = random.Random(7)
    made = []
    for _number in range(2000):
        parts = ("".join(chosen.choices(_ALPHABET, k=n)) for n in (ID_LENGTH, SECRET_LENGTH))
        made.append(request("GET /v1/models", format_key(*parts)))
    return Plan(requests=made, connections=16, count=250)


def _new_connections(_: Site) -> Plan:
    made = request("GET /healthz", None, b"", "Connection: close")
    return Plan(requests=[made], connections=64, count=60, reuse=False)


def _large_bodies(role: str, count: int) -> Callable[[Site], Plan]:
    def plan(site: Site) -> Plan:
        made = request(_INFER, site.keys[role], payloads.small_values(15 * MIB))
        return Plan(requests=[made], connections=24, count=count)

    return plan


def _unknown_fields(line: str, role: str | None) -> Callable[[Site], Plan]:
    def plan(site: Site) -> Plan:
        key = None if role is None else site.keys[role]
        size = 16 * MIB - 1024
        return Plan(requests=[request(line, key, payloads.unknown_fields(size))], connections=4)

    return plan


def _audit_queries(line: str, connections: int = 24) -> Callable[[Site], Plan]:
    def plan(site: Site) -> Plan:
        queries = (
            "subject=*9999*&limit=100",
            "principal=key:*&limit=100&offset=250000",
            "log=inferences&subject=deploy_*&offset=200000",
            "outcome=denied",
        )
        made = [request(f"GET {line}?{query}", site.keys["owner"]) for query in queries]
        return Plan(requests=made, connections=connections, count=3)

    return plan


def _large_deploys(site: Site) -> Plan:
    environment = {f"V{number}": "e" * 32_000 for number in range(62)}
    made = []
    for number in range(60):
        body = model_body(f"many-{number}", "steady/model:1", 1000, environment=environment)
        needs = {"cpu": "1", "memory": "1Gi"}
        body["deployment_config"]["resource_requirements"] = needs
        made.append(request(_DEPLOY, site.keys["deployer"], as_json(body)))
    return Plan(requests=made, connections=4, count=15)


def _large_updates(site: Site) -> Plan:
    made = []
    for number in range(20):
        environment = {f"V{n}": f"{number}" * 3_000 for n in range(250)}
        body = as_json({"deployment_config": {"environment": environment}})
        made.append(request("PUT /v1/custom-models/hostile?dry_run=true", site.keys["owner"], body))
    return Plan(requests=made, connections=8, count=10)


def _dry_runs(site: Site) -> Plan:
    body = model_body("rehearsed", "steady/model:1", 1000)
    made = request(f"{_DEPLOY}?dry_run=true", site.keys["deployer"], as_json(body))
    return Plan(requests=[made], connections=8, count=20)


def _idempotency_keys(site: Site) -> Plan:
    numbers = itertools.count()
    models = [f"model-{number:040d}" for number in range(1000)]
    body = as_json({"name": "many", "role": "viewer", "models": models})
    made = [
        request("POST /v1/api-keys", site.keys["owner"], body, f"Idempotency-Key: {n}")
        for n in itertools.islice(numbers, 300)
    ]
    return Plan(requests=made, connections=8, count=38)


def _archives(site: Site) -> Plan:
    bomb = payloads.gzip_bomb()
    as_tar, as_gzip = "Content-Type: application/x-tar", "Content-Encoding: gzip"
    made = [
        request("POST /v1/images", site.keys["owner"], bomb, as_tar),
        request("POST /v1/images", site.keys["owner"], bomb, as_tar, as_gzip),
        request("POST /v1/images", site.keys["owner"], b"\0" * (64 * MIB), as_tar),
    ]
    return Plan(requests=made, connections=6, count=2, reuse=False)


def _odd_ids(site: Site) -> Plan:
    lines = ("", "9" * 18, "9" * 5000, "x" * 5000)
    path = f"GET /v1/custom-models/deployments/{site.deployments['hostile']}/events"
    made = [
        request(path, site.keys["viewer"], b"", "Accept: text/event-stream", f"Last-Event-ID: {n}")
        for n in lines
    ]
    return Plan(requests=made, connections=200, held=True)


def _lists(site: Site) -> Plan:
    paths = ("/v1/custom-models", "/v1/custom-models/deployments", "/v1/models")
    made = [
        request(f"GET {path}?limit=100&offset={offset}", site.keys["viewer"])
        for path in paths
        for offset in (0, 10**9)
    ]
    return Plan(requests=made, connections=16, count=100)


def _shadowed(site: Site) -> Plan:
    body = as_json({"inputs": {"do": "large"}, "parameters": {"note": "x" * MIB}})
    made = request(_INFER, site.keys["invoker"], body)
    return Plan(requests=[made], connections=8, count=2)


CASES: Sequence[Case] = (
    Case("harmless requests of equal weight", _NOBODY, _harmless),
    Case("bombs to an unknown model", _NOBODY, _with_bombs("POST /v1/models/none/infer", None)),
    Case("bombs to deploy", _NOBODY, _with_bombs(_DEPLOY, None)),
    Case("worst JSON without a key", _NOBODY, _with_worst_json(_DEPLOY, None, "model_name")),
    Case("unknown fields without a key", _NOBODY, _unknown_fields(_SCALE, None)),
    Case("slow heads", _NOBODY, _slow_heads),
    Case("2,000 idle connections", _NOBODY, _idle_sockets),
    Case("pipelined small requests", _NOBODY, _pipelined("GET /healthz", None)),
    Case("pipelined refusals", _NOBODY, _pipelined("GET /v1/models", None)),
    Case("huge heads and queries", _NOBODY, _huge_headers),
    Case("malformed HTTP", _NOBODY, _malformed),
    Case("chunks of one byte without a key", _NOBODY, _tiny_chunks(_DEPLOY, None)),
    Case("unknown keys in the right form", _NOBODY, _unknown_keys),
    Case("new connections", _NOBODY, _new_connections),
    Case("bombs to scale", _WEAKEST, _with_bombs(_SCALE, "viewer")),
    Case("bombs to infer", _WEAKEST, _with_bombs(_INFER, "invoker")),
    Case("unknown fields to scale", _WEAKEST, _unknown_fields(_SCALE, "viewer")),
    Case("worst JSON to deploy", _WEAKEST, _with_worst_json(_DEPLOY, "viewer", "model_name")),
    Case("worst JSON to infer", _WEAKEST, _with_worst_json(_INFER, "invoker", "inputs")),
    Case("chunks of one byte to infer", _WEAKEST, _tiny_chunks(_INFER, "invoker")),
    Case("24 bodies of 15 MiB", _WEAKEST, _large_bodies("invoker", 1)),
    Case("bodies over a rate limit", _WEAKEST, _large_bodies("limited", 3)),
    Case("slow bodies", _WEAKEST, _slow_bodies),
    Case(
        "unread streams",
        _WEAKEST,
        _unread(_INFER, "invoker", _do("events"), "Accept: text/event-stream"),
    ),
    Case("unread answers", _WEAKEST, _unread(_INFER, "invoker", _do("large"))),
    Case(
        "2,000 followers of events",
        _WEAKEST,
        _followers("GET /v1/custom-models/deployments/DEPLOYMENT/events", "viewer"),
    ),
    Case("followers with odd ids", _WEAKEST, _odd_ids),
    Case("lists at large offsets", _WEAKEST, _lists),
    Case("denied changes", _WEAKEST, _flood("DELETE /v1/custom-models/hostile", "viewer")),
    Case("denied reads", _WEAKEST, _flood("GET /v1/audit", "viewer")),
    Case("pipelined lists", _WEAKEST, _pipelined("GET /v1/custom-models", "viewer")),
    Case(
        "2,000 followers of logs",
        _OWNER,
        _followers("GET /v1/custom-models/deployments/DEPLOYMENT/logs?follow=true", "deployer"),
    ),
    Case("2,000 followers of the audit", _OWNER, _followers("GET /v1/audit", "owner")),
    Case("24 audit queries", _OWNER, _audit_queries("/v1/audit")),
    Case("unread audit exports", _OWNER, _unread("GET /v1/audit/export", "owner", b"")),
    Case("audit verifications", _OWNER, _flood("GET /v1/audit/verify", "owner", count=1)),
    Case("OpenAPI requests", _OWNER, _flood("GET /openapi.json", "deployer", count=20)),
    Case("metrics requests", _OWNER, _flood("GET /metrics", "deployer", count=20)),
    Case("dry runs", _OWNER, _dry_runs),
    Case("60 models of 1,000 replicas and 2 MB", _OWNER, _large_deploys),
    Case("updates of 750 KB", _OWNER, _large_updates),
    Case("idempotency keys with large answers", _OWNER, _idempotency_keys),
    Case("unknown fields to deploy", _OWNER, _unknown_fields(_DEPLOY, "deployer")),
    Case("bombs to deploy as a deployer", _OWNER, _with_bombs(_DEPLOY, "deployer")),
    Case(
        "worst JSON to deploy as a deployer",
        _OWNER,
        _with_worst_json(_DEPLOY, "deployer", "deployment_config.command"),
    ),
    Case("archives that are bombs", _OWNER, _archives),
    Case("own model: interim answers without end", _OWNER, _asking("interim")),
    Case("own model: headers without end", _OWNER, _asking("headers")),
    Case("own model: chunks of one byte", _OWNER, _asking("chunks")),
    Case("own model: large answers", _OWNER, _asking("large")),
    Case("own model: 30 million values", _OWNER, _asking("values")),
    Case("own model: deep answers", _OWNER, _asking("deep")),
    Case("own model: long numbers", _OWNER, _asking("numbers")),
    Case("own model: 500,000 names", _OWNER, _asking("names")),
    Case("own model: events without end", _OWNER, _asking("events")),
    Case("own model: 10 MB of log for each request", _OWNER, _asking("log")),
    Case("large requests with large answers", _OWNER, _shadowed),
)
