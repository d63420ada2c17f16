"""What a request's body may be, as its head tells, and when it is asked for at all."""

from aiohttp import web

from prsmd.domain.errors import UnsupportedMediaTypeError

ACCEPTED_CODINGS = ("identity",)
CONTINUE = "100-continue"
_SHOWN = 100


def refuse_coded(request: web.Request) -> None:
    """Refuse a body that is compressed, or encoded in any other way: a small one could be huge.

    Raises:
        UnsupportedMediaTypeError: `Content-Encoding` names a coding, or `Transfer-Encoding` another
            one than `chunked`.
    """
    codings = _tokens(request, "Content-Encoding")
    coded = [coding for coding in codings if coding not in ACCEPTED_CODINGS]
    coded += [c for c in _tokens(request, "Transfer-Encoding") if c not in {"chunked", "identity"}]
    if coded:
        raise UnsupportedMediaTypeError(
            f"A body with coding {', '.join(coded)[:_SHOWN]} is not accepted here; send it as it is"
            f" (Content-Encoding: {' or '.join(ACCEPTED_CODINGS)}).",
            accepted_codings=list(ACCEPTED_CODINGS),
        )


async def ask_for_body(request: web.Request) -> None:
    """Have the client send its body where it waits to be told so (`Expect: 100-continue`)."""
    if request.headers.get("Expect", "").lower() == CONTINUE and not request.content.total_bytes:
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # of the answer nothing is sent


def _tokens(request: web.Request, name: str) -> list[str]:
    """Return the members of a list header, however often it is given, in lower case."""
    values = request.headers.getall(name, [])
    members = (member.strip().lower() for value in values for member in value.split(","))
    return [member for member in members if member]
