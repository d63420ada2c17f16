"""What an organization may have at most where no administrator says otherwise."""

from typing import Annotated

from pydantic import AfterValidator

from prsmd.domain.resource_quota import Dimension, parse_amount

from .section import Section


def _of(dimension: Dimension) -> AfterValidator:
    def check(value: str | int) -> str | int:
        parse_amount(dimension, value)
        return value

    return AfterValidator(check)


_D = Dimension


class QuotaSection(Section):
    """The default quota of every organization: quantities, counts, or "unlimited"."""

    cpu: Annotated[str | int, _of(_D.CPU)] = "256"
    memory: Annotated[str | int, _of(_D.MEMORY)] = "2Ti"
    gpu: Annotated[str | int, _of(_D.GPU)] = "32"
    replicas: Annotated[str | int, _of(_D.REPLICAS)] = 500
    models: Annotated[str | int, _of(_D.MODELS)] = 100
    keys: Annotated[str | int, _of(_D.KEYS)] = 200
    members: Annotated[str | int, _of(_D.MEMBERS)] = 500
    roles: Annotated[str | int, _of(_D.ROLES)] = 50
    secrets: Annotated[str | int, _of(_D.SECRETS)] = 200
    registries: Annotated[str | int, _of(_D.REGISTRIES)] = 50
    shares: Annotated[str | int, _of(_D.SHARES)] = 500
    image_bytes: Annotated[str | int, _of(_D.IMAGE_BYTES)] = "1Ti"
    answer_bytes: Annotated[str | int, _of(_D.ANSWER_BYTES)] = "64Mi"
    connections: Annotated[str | int, _of(_D.CONNECTIONS)] = 2048
    replicas_per_model: Annotated[str | int, _of(_D.REPLICAS_PER_MODEL)] = 100
    revisions_per_model: Annotated[str | int, _of(_D.REVISIONS_PER_MODEL)] = 50
    environment_per_model: Annotated[str | int, _of(_D.ENVIRONMENT_PER_MODEL)] = "256Ki"

    @property
    def hard(self) -> dict[Dimension, int | None]:
        """The limits by dimension; None is unlimited."""
        return {one: parse_amount(one, getattr(self, one.value)) for one in Dimension}
