"""What an operation of the API is: one row of the route table, from which OpenAPI is made too."""

import dataclasses
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from aiohttp import web
from pydantic import BaseModel

from prsmd.core.memory_budget import MemoryBudget
from prsmd.domain.access import Permission
from prsmd.gateway.turns import Turns
from prsmd.service.answers import Answers
from prsmd.service.audit import Audit
from prsmd.service.authorization import Authorization
from prsmd.service.belonging import Needs
from prsmd.service.caller import Caller
from prsmd.service.deployments import Deployments
from prsmd.service.events import Events
from prsmd.service.health import Health
from prsmd.service.idempotency import Answer
from prsmd.service.images import Images
from prsmd.service.inference import Inferences
from prsmd.service.keys import Keys
from prsmd.service.logs import Logs
from prsmd.service.members import Members
from prsmd.service.node import Nodes
from prsmd.service.organizations import Organizations
from prsmd.service.registries import Registries
from prsmd.service.rehearsals import Rehearsals
from prsmd.service.resource_quotas import ResourceQuotas
from prsmd.service.revisions import Revisions
from prsmd.service.roles import Roles
from prsmd.service.rollouts import Rollouts
from prsmd.service.secrets import Secrets
from prsmd.service.shares import Shares
from prsmd.service.status import Status
from prsmd.service.underway import Underway
from prsmd.service.usage import Usage
from prsmd.service.versions import Versions

CONTROL_BODY_BYTES = 1024**2  # no request that changes what is wanted needs as much
EMPTY_BODY_BYTES = 1024  # for a body that has nothing to say
REQUEST_ID = web.RequestKey("request_id", str)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """The use cases, and what the API itself works with.

    `memory` counts what is held for callers, `turns` are for long work on the event loop, and
    `uploads` is the folder where large bodies arrive.
    """

    deployments: Deployments
    revisions: Revisions
    rollouts: Rollouts
    rehearsals: Rehearsals
    versions: Versions
    status: Status
    events: Events
    logs: Logs
    inferences: Inferences
    nodes: Nodes
    keys: Keys
    organizations: Organizations
    roles: Roles
    members: Members
    images: Images
    registries: Registries
    secrets: Secrets
    health: Health
    audit: Audit
    quotas: ResourceQuotas
    shares: Shares
    usage: Usage
    answers: Answers
    authorization: Authorization
    memory: MemoryBudget
    turns: Turns
    public_url: str
    uploads: Path


Handler = Callable[[Services, web.Request, Caller], Awaitable[Any]]
AnswerOf = Callable[[Services, Any], Answer]
OpenHandler = Callable[[Services, web.Request], Awaitable[web.StreamResponse]]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One method on one path. `query` maps parameter names to what they mean.

    What changes something has an `answer`: its handler returns a result, which the use case has
    remembered, and `answer` says how that is told (service/idempotency.py). Other handlers return a
    response; so does `rehearsal`, which is asked in its place for a dry run. `uploads`: the body is
    a stream that is not kept in memory. `body_bytes`: how large another body may be (None: as large
    as any), if it has fields at all. `conditional`: `If-Match` says which revision the caller
    has seen. `body_optional`: none means an empty one. `lent` False: no share gives it.
    `streams`: the answer can be a stream (api/streams.py), of the type `streams_as` where `answers`
    is JSON. `polls`: it can be waited for.
    `needs` says what must be known of who calls.
    `counts_itself`: whether it counts in the limits of the caller's key turns out later.
    """

    method: str
    path: str
    handler: Handler
    summary: str
    permission: Permission | None = None
    body: type[BaseModel] | None = None
    body_bytes: int | None = CONTROL_BODY_BYTES
    query: Mapping[str, str] = dataclasses.field(default_factory=dict)
    answer: AnswerOf | None = None
    rehearsal: Handler | None = None
    uploads: bool = False
    conditional: bool = False
    body_optional: bool = False
    lent: bool = True
    streams: bool = False
    polls: bool = False
    counts_itself: bool = False
    needs: Needs = Needs.ORGANIZATION
    answers: str = "application/json"
    streams_as: str = "text/event-stream"

    @property
    def most_body_bytes(self) -> int | None:
        """How large a body may be; None: as large as any. One without fields is small."""
        if self.body is not None and not self.body.model_fields:
            return EMPTY_BODY_BYTES
        return self.body_bytes


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class OpenOperation:
    """One GET that needs no identity and gives no details."""

    path: str
    handler: OpenHandler
    summary: str


OPERATION = web.RequestKey("operation", Operation)
UNDERWAY = web.AppKey("underway", Underway)
