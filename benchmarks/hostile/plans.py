"""What is sent in each hostile case, made from the site's keys when it is its turn.

Every byte is there before the first one is sent, and the counts are such that the senders need
little of the processor.
"""

import itertools
import random
from collections.abc import Callable

from benchmarks.hostile import payloads
from benchmarks.hostile.payloads import MIB, as_json, head, request
from benchmarks.hostile.senders import Answers, Plan
from benchmarks.hostile.site import Site, model_body
from prsmd.core.apikey import ID_LENGTH, SECRET_LENGTH, format_key

DEPLOY = "POST /v1/custom-models/deploy"
SCALE = "POST /v1/custom-models/hostile/scale"
MODEL = "/v1/custom-models/hostile"
INFER = "POST /v1/models/hostile/infer"
USAGE = "GET /v1/custom-models/hostile/usage?format=csv&limit=100"
NEW_KEY = as_json({"name": "one more", "role": "viewer"})
PlanOf = Callable[[Site], Plan]

_VARIABLE_BYTES = 30_000
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"


def with_bombs(line: str, role: str | None) -> PlanOf:
    """Bodies of 1 MB that inflate to 1 GiB."""

    def plan(site: Site) -> Plan:
        key = None if role is None else site.keys[role]
        made = [
            request(line, key, payloads.gzip_bomb(), "Content-Encoding: gzip"),
            request(line, key, payloads.deflate_bomb(), "Content-Encoding: deflate"),
        ]
        return Plan(requests=made, connections=6, reuse=False)

    return plan


def with_worst_json(line: str, role: str | None, field: str) -> PlanOf:
    """Bodies of 1 MiB, each bad for a JSON parser in its own way."""

    def plan(site: Site) -> Plan:
        key = None if role is None else site.keys[role]
        bodies = payloads.worst_json(field)
        return Plan(
            requests=[request(line, key, body) for body in bodies],
            connections=4,
            count=2 * len(bodies),
        )

    return plan


def flood(
    line: str, role: str | None, body: bytes = b"", *, count: int = 200, connections: int = 16
) -> PlanOf:
    """Return a plan of so many equal requests on each connection."""

    def plan(site: Site) -> Plan:
        key = None if role is None else site.keys[role]
        return Plan(requests=[request(line, key, body)], connections=connections, count=count)

    return plan


def followers(line: str, role: str, *more: str) -> PlanOf:
    """2,000 clients that follow an event stream."""

    def plan(site: Site) -> Plan:
        path = line.replace("DEPLOYMENT", site.deployments["hostile"])
        made = request(path, site.keys[role], b"", "Accept: text/event-stream", *more)
        return Plan(requests=[made], connections=2000, held=True)

    return plan


def unread(line: str, role: str, body: bytes, *more: str) -> PlanOf:
    """64 clients that never read what they asked for."""

    def plan(site: Site) -> Plan:
        made = request(line, site.keys[role], body, *more)
        return Plan(requests=[made], connections=64, answers=Answers.UNREAD, held=True)

    return plan


def asking(what: str, *, connections: int = 8, count: int = 2) -> PlanOf:
    """Return a plan of inferences that have the tenant's own model do something."""

    def plan(site: Site) -> Plan:
        made = request(INFER, site.keys["invoker"], do(what))
        return Plan(requests=[made], connections=connections, count=count)

    return plan


def pipelined(line: str, role: str | None) -> PlanOf:
    """Small requests, sent without waiting for any answer."""

    def plan(site: Site) -> Plan:
        key = None if role is None else site.keys[role]
        many = b"".join(request(line, key)) * 500
        return Plan(
            requests=[(many,)], connections=8, count=10, answers=Answers.PIPELINED, held=True
        )

    return plan


def do(what: str) -> bytes:
    """Return an inference's body that has the tenant's own model do something."""
    return as_json({"inputs": {"do": what}})


def harmless(_: Site) -> Plan:
    """As many small requests as hostile ones are sent in other cases."""
    return Plan(requests=[request("GET /healthz", None)], connections=8, count=300)


def slow_heads(_: Site) -> Plan:
    """1,000 heads that arrive byte by byte."""
    begin = head("GET /v1/models", None) + b"X-Slow: "
    return Plan(
        requests=[(begin, *([b"x"] * 100))], connections=1000, trickle_seconds=0.1, held=True
    )


def slow_bodies(site: Site) -> Plan:
    """200 bodies of which 4 MiB arrive at once, and the rest byte by byte."""
    made = payloads.trickled(INFER, site.keys["invoker"], 15 * MIB, 4 * MIB, 100)
    return Plan(requests=[made], connections=200, trickle_seconds=0.1, held=True)


def idle_sockets(_: Site) -> Plan:
    """2,000 connections on which nothing is sent."""
    return Plan(requests=[(b"",)], connections=2000, answers=Answers.UNREAD, held=True)


def huge_headers(_: Site) -> Plan:
    """Heads that are large, have many lines, many cookies or many parameters."""
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


def tiny_chunks(line: str, role: str | None) -> PlanOf:
    """2 MiB of spaces in chunks of one byte."""

    def plan(site: Site) -> Plan:
        key = None if role is None else site.keys[role]
        begin = head(line, key, "Content-Type: application/json", "Transfer-Encoding: chunked")
        chunks = b"1\r\n \r\n" * (2 * MIB)
        return Plan(requests=[(begin + b"\r\n", chunks, b"0\r\n\r\n")], connections=6, reuse=False)

    return plan


def malformed(_: Site) -> Plan:
    """What is no HTTP, or hardly."""
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


def unknown_keys(_: Site) -> Plan:
    """2,000 keys whose form and checksum are right."""
    chosen = random.Random(7)
    made = []
    for _number in range(2000):
        parts = ("".join(chosen.choices(_ALPHABET, k=n)) for n in (ID_LENGTH, SECRET_LENGTH))
        made.append(request("GET /v1/models", format_key(*parts)))
    return Plan(requests=made, connections=16, count=250)


def new_connections(_: Site) -> Plan:
    """A new connection for each request."""
    made = request("GET /healthz", None, b"", "Connection: close")
    return Plan(requests=[made], connections=64, count=60, reuse=False)


def large_bodies(role: str, count: int) -> PlanOf:
    """24 bodies of 15 MiB of empty lists."""

    def plan(site: Site) -> Plan:
        made = request(INFER, site.keys[role], payloads.small_values(15 * MIB))
        return Plan(requests=[made], connections=24, count=count)

    return plan


def unknown_fields(line: str, role: str | None) -> PlanOf:
    """Bodies of 16 MiB of fields that nobody knows."""

    def plan(site: Site) -> Plan:
        key = None if role is None else site.keys[role]
        size = 16 * MIB - 1024
        return Plan(requests=[request(line, key, payloads.unknown_fields(size))], connections=4)

    return plan


def audit_queries(line: str, connections: int = 24) -> PlanOf:
    """Queries that look at most of the audit."""

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


def large_deploys(replicas: int, environment_bytes: int) -> PlanOf:
    """60 deploys with so much environment and so many replicas each."""

    def plan(site: Site) -> Plan:
        variables = environment_bytes // _VARIABLE_BYTES
        environment = {f"V{number}": "e" * _VARIABLE_BYTES for number in range(variables)}
        made = []
        for number in range(60):
            name = f"many-{number}"
            body = model_body(name, "steady/model:1", replicas, environment=environment)
            needs = {"cpu": "1", "memory": "1Gi"}
            body["deployment_config"]["resource_requirements"] = needs
            made.append(request(DEPLOY, site.keys["deployer"], as_json(body)))
        return Plan(requests=made, connections=4, count=15)

    return plan


def large_updates(site: Site) -> Plan:
    """Dry runs of updates with as much environment as a model may have."""
    made = []
    for number in range(20):
        environment = {f"V{n}": f"{number % 10}" * 1_000 for n in range(240)}
        body = as_json({"deployment_config": {"environment": environment}})
        made.append(request("PUT /v1/custom-models/hostile?dry_run=true", site.keys["owner"], body))
    return Plan(requests=made, connections=8, count=10)


def dry_runs(site: Site) -> Plan:
    """Dry runs that have as many replicas placed as a model may have."""
    body = model_body("rehearsed", "steady/model:1", 100)
    made = request(f"{DEPLOY}?dry_run=true", site.keys["deployer"], as_json(body))
    return Plan(requests=[made], connections=8, count=20)


def idempotency_keys(site: Site) -> Plan:
    """Changes whose answers are large and are all kept."""
    numbers = itertools.count()
    models = [f"model-{number:040d}" for number in range(100)]
    body = as_json({"name": "many", "role": "viewer", "models": models})
    made = [
        request("POST /v1/api-keys", site.keys["owner"], body, f"Idempotency-Key: {n}")
        for n in itertools.islice(numbers, 300)
    ]
    return Plan(requests=made, connections=8, count=38)


def archives(site: Site) -> Plan:
    """Archives of images that inflate, or are empty."""
    bomb = payloads.gzip_bomb()
    as_tar, as_gzip = "Content-Type: application/x-tar", "Content-Encoding: gzip"
    made = [
        request("POST /v1/images", site.keys["owner"], bomb, as_tar),
        request("POST /v1/images", site.keys["owner"], bomb, as_tar, as_gzip),
        request("POST /v1/images", site.keys["owner"], b"\0" * (64 * MIB), as_tar),
    ]
    return Plan(requests=made, connections=6, count=2, reuse=False)


def odd_ids(site: Site) -> Plan:
    """Followers that go on after records that never were."""
    lines = ("", "9" * 18, "9" * 5000, "x" * 5000)
    path = f"GET /v1/custom-models/deployments/{site.deployments['hostile']}/events"
    made = [
        request(path, site.keys["viewer"], b"", "Accept: text/event-stream", f"Last-Event-ID: {n}")
        for n in lines
    ]
    return Plan(requests=made, connections=200, held=True)


def lists(site: Site) -> Plan:
    """Lists, from their beginning and far behind their end."""
    paths = ("/v1/custom-models", "/v1/custom-models/deployments", "/v1/models")
    made = [
        request(f"GET {path}?limit=100&offset={offset}", site.keys["viewer"])
        for path in paths
        for offset in (0, 10**9)
    ]
    return Plan(requests=made, connections=16, count=100)


def shadowed(site: Site) -> Plan:
    """Requests of 1 MiB whose answers have 60."""
    body = as_json({"inputs": {"do": "large"}, "parameters": {"note": "x" * MIB}})
    made = request(INFER, site.keys["invoker"], body)
    return Plan(requests=[made], connections=8, count=2)


def on_trial(site: Site) -> Plan:
    """Inferences that are copied to a revision on trial, with answers of 60 MiB."""
    body = {
        "deployment_config": {"environment": {"REVISION": "on trial"}},
        "rollout": {"strategy": "shadow", "shadow": {"percent": 100}, "promotion": "manual"},
    }
    site.change("PUT", MODEL, body)
    site.until_on_trial()
    made = request(INFER, site.keys["invoker"], do("large"))
    return Plan(requests=[made], connections=8, count=2)


def differences(site: Site) -> Plan:
    """Comparisons of two revisions whose environments are large and differ everywhere."""
    for number in range(2):
        environment = {f"V{n}": f"{number}" * 900 for n in range(250)}
        config = {"environment": environment, "scaling": {"min_replicas": 0, "max_replicas": 1}}
        body = model_body("compared", "steady/model:1", 0, **config)
        path = "/v1/custom-models/compared" if number else "/v1/custom-models/deploy"
        body["model_metadata"] = {"version": f"{number + 1}.0.0"}
        site.change("PUT" if number else "POST", path, body)
    line = "GET /v1/custom-models/compared/diff?from=1&to=2"
    return Plan(requests=[request(line, site.keys["viewer"])], connections=16, count=20)


def long_polls(site: Site) -> Plan:
    """1,000 clients that wait for a deployment to settle, which changes all the time."""
    path = f"GET /v1/custom-models/deployments/{site.deployments['hostile']}?wait=60"
    made = request(path, site.keys["viewer"])
    return Plan(requests=[made], connections=1000, count=3)


def log_reads(site: Site) -> Plan:
    """Reads of as much log as can be had."""
    path = f"GET /v1/custom-models/deployments/{site.deployments['hostile']}/logs?tail=10000"
    return Plan(requests=[request(path, site.keys["deployer"])], connections=16, count=5)


def handshakes(_: Site) -> Plan:
    """A new TLS connection for each request."""
    made = request("GET /healthz", None, b"", "Connection: close")
    return Plan(requests=[made], connections=400, count=4, reuse=False, tls=True)


def half_handshakes(_: Site) -> Plan:
    """Connections that begin a TLS handshake and never go on."""
    hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
    return Plan(requests=[(hello,)], connections=1000, answers=Answers.UNREAD, held=True)
