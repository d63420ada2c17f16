"""Writes docs/permissions.md from the table of permissions and the route table.

`--check` writes nothing and fails when the document is not what the tables say.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from prsmd.api.app import OPERATIONS  # noqa: E402 - the checkout's own, wherever this is run
from prsmd.api.operations import Operation  # noqa: E402
from prsmd.domain.access import PERMISSIONS, ROLES, Permission  # noqa: E402

DOCUMENT = ROOT / "docs" / "permissions.md"
HEAD = """# Who may do what

Made by `scripts/permissions.py` from `prsmd/domain/access.py` and the route table; a test fails
when it is stale.

A caller acts for one organization. A **role** is a set of permissions. It is given to an API key
or a member in the whole organization, or to a member on one model, where only what is about
models counts. An organization can have roles of its own, which allow no more than `owner` does.
Nobody gives, takes or changes what allows more than they may themselves, nor gives it for longer
or from more networks than they have it.

What belongs to another organization does not exist: the answer is that for something that never
was. A **share** changes that for one model and for the permissions marked below, and only for
callers whose own role has them too. A key that is held to some models has only permissions that
are about models, and no other model exists for it.
"""


def document() -> str:
    """Return the whole document."""
    return "\n".join([HEAD, *_permissions(), "", *_roles(), "", *_operations(), ""])


def _permissions() -> list[str]:
    rows = [
        f"| `{permission}` | {meaning.allows} | {meaning.scope} |"
        f" {'yes' if meaning.shareable else ''} |"
        for permission, meaning in PERMISSIONS.items()
    ]
    return [
        "## Permissions",
        "",
        "| permission | allows to | is about | can be shared |",
        "|---|---|---|---|",
        *rows,
    ]


def _roles() -> list[str]:
    rows = []
    for permission in Permission:
        marks = ["x" if permission in granted else "" for granted in ROLES.values()]
        rows.append(f"| `{permission}` | {' | '.join(marks)} |")
    return [
        "## Built-in roles",
        "",
        "`admin` administers the appliance and sees every organization; others see their own.",
        "",
        f"| permission | {' | '.join(ROLES)} |",
        f"|---|{'---|' * len(ROLES)}",
        *rows,
    ]


def _operations() -> list[str]:
    rows = [
        f"| {operation.method} | `{operation.path}` | {_needs(operation)} |"
        for operation in sorted(OPERATIONS, key=lambda one: (one.path, one.method))
    ]
    return ["## Operations", "", "| method | path | needs |", "|---|---|---|", *rows]


def _needs(operation: Operation) -> str:
    if operation.permission is None:
        return "to be known"
    return f"`{operation.permission}`" + ("" if operation.lent else ", not by a share")


def main() -> int:
    """Write or check the document; return the exit code."""
    made = document()
    if "--check" not in sys.argv[1:]:
        DOCUMENT.write_text(made, encoding="utf-8")
        return 0
    if DOCUMENT.exists() and DOCUMENT.read_text(encoding="utf-8") == made:
        return 0
    print("docs/permissions.md is stale: run scripts/permissions.py")
    return 1


if __name__ == "__main__":
    sys.exit(main())
