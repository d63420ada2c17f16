"""Bodies of the requests that change a model that runs: update, rollback, traffic.

An update is a merge patch: every field of a deploy may be given, null or left out. What it comes
to is checked as a deploy is, once it lies over what is there.
"""

import itertools
from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import (
    BeforeValidator,
    Field,
    ValidationInfo,
    WithJsonSchema,
    create_model,
    field_validator,
    model_validator,
)

from prsmd.api import patterns
from prsmd.api.patch import PatchBody, absent, otherwise
from prsmd.api.schemas import Body, DeployBody, Version
from prsmd.api.validation import parse
from prsmd.domain.rollout import Gate, HeaderRule, RolloutOptions, RolloutStrategy
from prsmd.domain.spec import Spec

Percent = Annotated[int, Field(ge=1, le=100)]
RevisionNumber = Annotated[int, Field(ge=1, le=2**53)]
_DEFAULT = RolloutOptions()
_WHOLE = 100
_NAMED = {"authorization", "proxy-authorization", "x-api-key", "cookie"}  # they hold secrets


class HeaderBody(Body):
    """Requests with this header go to the revision on trial."""

    name: Annotated[str, Field(pattern=patterns.HEADER_NAME)]
    value: Annotated[str, Field(pattern=patterns.HEADER_VALUE)]

    @field_validator("name")
    @classmethod
    def _no_secret(cls, name: str) -> str:
        if name.lower() in _NAMED:
            raise ValueError("may hold a secret; use a header of your own")
        return name


class CanaryBody(Body):
    """How the traffic of a canary grows."""

    steps: Annotated[list[Percent], Field(min_length=1, max_length=20)] = otherwise(
        [*_DEFAULT.steps]
    )
    header: HeaderBody | None = None
    sticky: bool = otherwise(value=False)

    @field_validator("steps")
    @classmethod
    def _growing(cls, steps: list[int]) -> list[int]:
        for at, (before, after) in enumerate(itertools.pairwise(steps), 1):
            if after <= before:
                raise ValueError(f"must grow: steps[{at}] {after} is not above {before}")
        return steps


class ShadowBody(Body):
    """How much of the traffic is copied."""

    percent: Percent = otherwise(_DEFAULT.shadow_percent)


class GateBody(Body):
    """What a revision on trial has to hold."""

    max_error_rate: Annotated[float, Field(ge=0, le=1)] = otherwise(_DEFAULT.gate.max_error_rate)
    max_latency_ratio: Annotated[float, Field(gt=0, le=1000)] = otherwise(
        _DEFAULT.gate.max_latency_ratio
    )
    min_requests: Annotated[int, Field(ge=1, le=10**6)] = otherwise(_DEFAULT.gate.min_requests)


_TRIALS = tuple(strategy.value for strategy in RolloutStrategy if strategy.on_trial)
_ONLY_FOR = {
    "canary": ("canary",),
    "shadow": ("shadow",),
    "gate": _TRIALS,
    "bake_seconds": _TRIALS,
    "promotion": _TRIALS,
}


class RolloutBody(Body):
    """How the new revision takes over."""

    strategy: Literal[
        "auto", "surge", "buffered_swap", "recreate", "blue_green", "canary", "shadow"
    ] = otherwise("auto")
    max_surge: Annotated[int, Field(ge=0, le=1000)] | None = None
    min_ready_seconds: Annotated[float, Field(ge=0, le=3600)] = otherwise(
        _DEFAULT.min_ready_seconds
    )
    canary: CanaryBody = otherwise(CanaryBody())
    bake_seconds: Annotated[float, Field(ge=0, le=7 * 86400)] = otherwise(_DEFAULT.bake_seconds)
    shadow: ShadowBody = otherwise(ShadowBody())
    gate: GateBody = otherwise(GateBody())
    promotion: Literal["auto", "manual"] = otherwise("auto")

    @field_validator("max_surge", *_ONLY_FOR)
    @classmethod
    def _fits_the_strategy(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse what would silently do nothing, or for ever. Sees only what was given."""
        strategy, name = info.data.get("strategy", "auto"), str(info.field_name)
        if strategy not in _ONLY_FOR.get(name, (strategy,)):
            words = " or ".join(_ONLY_FOR[name])
            raise ValueError(f"has no meaning for strategy {strategy}, only for {words}")
        if name == "max_surge" and value == 0 and strategy == "surge":
            raise ValueError("must be at least 1 for surge: nothing could ever come")
        return value

    def options(self) -> RolloutOptions:
        """Return what was asked for."""
        found = self.canary.header
        return RolloutOptions(
            strategy=RolloutStrategy(self.strategy),
            max_surge=self.max_surge,
            min_ready_seconds=self.min_ready_seconds,
            steps=tuple(self.canary.steps),
            bake_seconds=self.bake_seconds,
            header=HeaderRule(name=found.name, value=found.value) if found else None,
            sticky=self.canary.sticky,
            shadow_percent=self.shadow.percent,
            gate=Gate(**self.gate.model_dump()),
            promote_by_hand=self.promotion == "manual",
        )


def _patch_of(schema: type[Body], name: str, **more: Any) -> type[PatchBody]:
    """Return the schema of a merge patch on `schema`: everything may be left out or null."""
    fields: dict[str, Any] = dict(more)
    for field, info in schema.model_fields.items():
        inner = info.annotation
        if isinstance(inner, type) and issubclass(inner, Body):
            kind: Any = _patch_of(inner, f"{inner.__name__}Patch")
        else:
            kind = Annotated[inner, *info.metadata] if info.metadata else inner
        if get_origin(inner) is Mapping:
            kind = Annotated[kind, BeforeValidator(_without_nulls)]
        fields[field] = (kind if type(None) in get_args(inner) else kind | None, absent())
    return create_model(name, __base__=PatchBody, __doc__=schema.__doc__, **fields)


def _without_nulls(value: Any) -> Any:
    """Return what of an object a patch sets; it takes away the rest."""
    if not isinstance(value, dict):
        return value
    return {name: inner for name, inner in value.items() if inner is not None}


UpdateBody: type[PatchBody] = _patch_of(
    DeployBody, "UpdateBody", rollout=(RolloutBody | None, absent())
)
UpdateBody.__doc__ = "PUT /v1/custom-models/{model_id}: a merge patch on the current revision."


def update_of(body: Any) -> tuple[Mapping[str, Any], RolloutOptions]:
    """Return an update's merge patch and how to roll it out. InvalidInputError names each field."""
    rollout = parse(UpdateBody, body).given().get("rollout")
    options = RolloutOptions() if rollout is None else rollout.options()
    return {name: value for name, value in body.items() if name != "rollout"}, options


def spec_of(body: Mapping[str, Any]) -> Spec:
    """Return the spec that a whole body asks for. InvalidInputError names each wrong field."""
    return parse(DeployBody, body).spec()


class RollbackBody(Body):
    """POST /v1/custom-models/{model_id}/rollback. Neither: to the last good revision."""

    revision: RevisionNumber | None = None
    version: Version | None = None
    rollout: RolloutBody = otherwise(RolloutBody())

    @model_validator(mode="after")
    def _one_target(self) -> "RollbackBody":
        if self.revision is not None and self.version is not None:
            raise ValueError("name the target by revision or by version, not by both")
        return self


def _weights(value: Any) -> dict[int, int]:
    if isinstance(value, dict | list) and len(value) > _WHOLE:
        raise ValueError(f"must name at most {_WHOLE} revisions")
    if isinstance(value, dict):
        pairs = [(_revision(name), weight) for name, weight in value.items()]
    elif isinstance(value, list) and all(isinstance(item, dict) for item in value):
        if any(set(item) != {"revision", "weight"} for item in value):
            raise ValueError('each item must be {"revision": N, "weight": PERCENT}')
        pairs = [(item["revision"], item["weight"]) for item in value]
    else:
        raise ValueError('must be an object such as {"3": 90, "2": 10}')
    for number in itertools.chain.from_iterable(pairs):
        if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < 10**15:
            raise ValueError("revisions and weights must be whole numbers, 0 or more")
    if len(dict(pairs)) != len(pairs):
        raise ValueError("name each revision once")
    if (total := sum(weight for _, weight in pairs)) != 100:
        raise ValueError(f"must sum to 100, not to {total}")
    return dict(pairs)


def _revision(name: str) -> int:
    if not (name.isascii() and name.isdigit()) or len(name) > 15:
        raise ValueError(f"{name[:50]!r} is not the number of a revision")
    return int(name)


_SHARES = {
    "description": "percents by revision, which sum to 100; also [{revision, weight}]",
    "type": ["object", "array"],
    "additionalProperties": {"type": "integer", "minimum": 0, "maximum": 100},
}


class TrafficBody(Body):
    """PUT /v1/custom-models/{model_id}/traffic."""

    weights: Annotated[dict[int, int], BeforeValidator(_weights), WithJsonSchema(_SHARES)]


class EmptyBody(Body):
    """A request that says everything by its path; `{}` is accepted too."""
