"""Shapes of names in requests, and how a refusal tells each of them in words."""

from collections.abc import Mapping
from types import MappingProxyType

ORGANIZATION = "^[a-z0-9][a-z0-9-]{0,62}$"
ROLE = "^[a-z0-9][a-z0-9._-]{0,62}$"
MODEL = "^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"
RUNTIME_CLASS = "^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"
LINE = "^[^\\x00-\\x1f\\x7f]*$"
SUBJECT = "^[\\x21-\\x7e]*$"
USER = "^[^\\x00-\\x1f:]*$"
WITHOUT_NUL = "^[^\\x00]*$"
HEADER_NAME = "^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}$"
HEADER_VALUE = "^[\\x21-\\x7e](?:[\\x20-\\x7e]{0,254}[\\x21-\\x7e])?$"

IN_WORDS: Mapping[str, str] = MappingProxyType(
    {
        ORGANIZATION: "must be 1 to 63 of a-z, 0-9 and '-', with a letter or digit first",
        ROLE: "must be 1 to 63 of a-z, 0-9, '.', '_' and '-', with a letter or digit first",
        MODEL: "must be 1 to 100 of A-Z, a-z, 0-9, '.', '_' and '-', with a letter or digit first",
        RUNTIME_CLASS: "must be the name of a runtime of the engine, such as runsc",
        LINE: "must be one line without control characters",
        SUBJECT: "must be printable ASCII without spaces",
        USER: "must have neither ':' nor control characters",
        WITHOUT_NUL: "must not contain NUL",
        HEADER_NAME: "must be the name of an HTTP header",
        HEADER_VALUE: "must be 1 to 256 of printable ASCII, without a space at its ends",
    }
)
