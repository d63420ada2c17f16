"""What every section of the settings is made of: unknown keys are refused, values are checked."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from prsmd.domain.quantity import parse_cpu, parse_memory


class Section(BaseModel):
    """One table of the file: frozen, with no keys but its own."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _checked_memory(text: str) -> str:
    parse_memory(text)
    return text


def _checked_cpu(text: str) -> str:
    if text != "0":
        parse_cpu(text)
    return text


Memory = Annotated[str, AfterValidator(_checked_memory)]
Cpu = Annotated[str, AfterValidator(_checked_cpu)]
Seconds = Annotated[float, Field(gt=0, le=86400)]
