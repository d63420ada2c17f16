"""The hostile request kinds: who sends what. A case is one row."""

import dataclasses
from collections.abc import Sequence

from benchmarks.hostile import plans, stored
from benchmarks.hostile.plans import PlanOf

_NOBODY = "unauthenticated"
_WEAKEST = "weakest key"
_OWNER = "tenant's owner"


@dataclasses.dataclass(frozen=True, slots=True)
class Case:
    """One hostile request kind, from one position. `tls`: on a daemon that speaks TLS."""

    name: str
    position: str
    plan: PlanOf
    tls: bool = False


CASES: Sequence[Case] = (
    Case("harmless requests of equal weight", _NOBODY, plans.harmless),
    Case(
        "bombs to an unknown model", _NOBODY, plans.with_bombs("POST /v1/models/none/infer", None)
    ),
    Case("bombs to deploy", _NOBODY, plans.with_bombs(plans.DEPLOY, None)),
    Case(
        "worst JSON without a key", _NOBODY, plans.with_worst_json(plans.DEPLOY, None, "model_name")
    ),
    Case("unknown fields without a key", _NOBODY, plans.unknown_fields(plans.SCALE, None)),
    Case("slow heads", _NOBODY, plans.slow_heads),
    Case("2,000 idle connections", _NOBODY, plans.idle_sockets),
    Case("pipelined small requests", _NOBODY, plans.pipelined("GET /healthz", None)),
    Case("pipelined refusals", _NOBODY, plans.pipelined("GET /v1/models", None)),
    Case("huge heads and queries", _NOBODY, plans.huge_headers),
    Case("malformed HTTP", _NOBODY, plans.malformed),
    Case("chunks of one byte without a key", _NOBODY, plans.tiny_chunks(plans.DEPLOY, None)),
    Case("unknown keys in the right form", _NOBODY, plans.unknown_keys),
    Case("new connections", _NOBODY, plans.new_connections),
    Case("bombs to scale", _WEAKEST, plans.with_bombs(plans.SCALE, "viewer")),
    Case("bombs to infer", _WEAKEST, plans.with_bombs(plans.INFER, "invoker")),
    Case("unknown fields to scale", _WEAKEST, plans.unknown_fields(plans.SCALE, "viewer")),
    Case(
        "worst JSON to deploy",
        _WEAKEST,
        plans.with_worst_json(plans.DEPLOY, "viewer", "model_name"),
    ),
    Case("worst JSON to infer", _WEAKEST, plans.with_worst_json(plans.INFER, "invoker", "inputs")),
    Case("chunks of one byte to infer", _WEAKEST, plans.tiny_chunks(plans.INFER, "invoker")),
    Case("24 bodies of 15 MiB", _WEAKEST, plans.large_bodies("invoker", 1)),
    Case("bodies over a rate limit", _WEAKEST, plans.large_bodies("limited", 3)),
    Case("slow bodies", _WEAKEST, plans.slow_bodies),
    Case(
        "unread streams",
        _WEAKEST,
        plans.unread(plans.INFER, "invoker", plans.do("events"), "Accept: text/event-stream"),
    ),
    Case("unread answers", _WEAKEST, plans.unread(plans.INFER, "invoker", plans.do("large"))),
    Case(
        "2,000 followers of events",
        _WEAKEST,
        plans.followers("GET /v1/custom-models/deployments/DEPLOYMENT/events", "viewer"),
    ),
    Case("followers with odd ids", _WEAKEST, plans.odd_ids),
    Case("lists at large offsets", _WEAKEST, plans.lists),
    Case("denied changes", _WEAKEST, plans.flood("DELETE /v1/custom-models/hostile", "viewer")),
    Case("denied reads", _WEAKEST, plans.flood("GET /v1/audit", "viewer")),
    Case("pipelined lists", _WEAKEST, plans.pipelined("GET /v1/custom-models", "viewer")),
    Case(
        "2,000 followers of logs",
        _OWNER,
        plans.followers(
            "GET /v1/custom-models/deployments/DEPLOYMENT/logs?follow=true", "deployer"
        ),
    ),
    Case("2,000 followers of the audit", _OWNER, plans.followers("GET /v1/audit", "owner")),
    Case("24 audit queries", _OWNER, plans.audit_queries("/v1/audit")),
    Case("unread audit exports", _OWNER, plans.unread("GET /v1/audit/export", "owner", b"")),
    Case("audit verifications", _OWNER, plans.flood("GET /v1/audit/verify", "owner", count=1)),
    Case("OpenAPI requests", _OWNER, plans.flood("GET /openapi.json", "deployer", count=20)),
    Case("metrics requests", _OWNER, plans.flood("GET /metrics", "deployer", count=20)),
    Case("dry runs", _OWNER, plans.dry_runs),
    Case("60 models of 1,000 replicas and 2 MB", _OWNER, plans.large_deploys(1000, 2_000_000)),
    Case("60 models of 8 replicas and 240 KB", _OWNER, plans.large_deploys(8, 240_000)),
    Case("updates of 240 KB", _OWNER, plans.large_updates),
    Case("lists of large keys", _OWNER, stored.large_keys),
    Case("changes of a role of many networks", _OWNER, stored.role_changes),
    Case("shares with 100 borrowers each", _OWNER, stored.large_shares),
    Case("idempotency keys with large answers", _OWNER, plans.idempotency_keys),
    Case("unknown fields to deploy", _OWNER, plans.unknown_fields(plans.DEPLOY, "deployer")),
    Case("bombs to deploy as a deployer", _OWNER, plans.with_bombs(plans.DEPLOY, "deployer")),
    Case(
        "worst JSON to deploy as a deployer",
        _OWNER,
        plans.with_worst_json(plans.DEPLOY, "deployer", "deployment_config.command"),
    ),
    Case("archives that are bombs", _OWNER, plans.archives),
    Case("own model: interim answers without end", _OWNER, plans.asking("interim")),
    Case("own model: headers without end", _OWNER, plans.asking("headers")),
    Case("own model: chunks of one byte", _OWNER, plans.asking("chunks")),
    Case("own model: large answers", _OWNER, plans.asking("large")),
    Case("own model: 30 million values", _OWNER, plans.asking("values")),
    Case("own model: deep answers", _OWNER, plans.asking("deep")),
    Case("own model: long numbers", _OWNER, plans.asking("numbers")),
    Case("own model: 500,000 names", _OWNER, plans.asking("names")),
    Case("own model: events without end", _OWNER, plans.asking("events")),
    Case("own model: 10 MB of log for each request", _OWNER, plans.asking("log")),
    Case("large requests with large answers", _OWNER, plans.shadowed),
    Case("copies to a revision on trial", _OWNER, plans.on_trial),
    Case("differences of large revisions", _WEAKEST, plans.differences),
    Case("1,000 long polls", _WEAKEST, plans.long_polls),
    Case("reads of large logs", _OWNER, plans.log_reads),
    Case("new keys", _OWNER, plans.flood("POST /v1/api-keys", "owner", plans.NEW_KEY, count=40)),
    Case("usage", _WEAKEST, plans.flood(plans.USAGE, "viewer", count=40)),
    Case("TLS handshakes", _NOBODY, plans.handshakes, tls=True),
    Case("halves of TLS handshakes", _NOBODY, plans.half_handshakes, tls=True),
)
