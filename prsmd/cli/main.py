"""Finds the command, loads its file, runs it, and turns what went wrong into words and a code.

Must stay quick to import: nothing here loads more than argparse before the command is known.
"""

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

from prsm_sdk import __version__

from .options import add_global_options

_COMMANDS = {  # command: (the file that has it, what it does)
    "deploy": ("deploy", "deploy a model and wait until it runs"),
    "update": ("revisions", "change a model; its new revision is rolled out"),
    "plan": ("apply", "show what files would change, step by step"),
    "apply": ("apply", "make models as files want them"),
    "rollout": ("rollouts", "watch, pause, resume, promote or abort an update"),
    "rollback": ("revisions", "go back to an earlier revision"),
    "versions": ("revisions", "list a model's revisions and what became of them"),
    "diff": ("revisions", "show how two revisions differ"),
    "traffic": ("rollouts", "show or divide a model's traffic between revisions"),
    "list": ("deployments", "list deployments"),
    "status": ("deployments", "show how a deployment does, and why"),
    "logs": ("logs", "show what a model's containers wrote"),
    "events": ("events", "show what happened to a deployment"),
    "infer": ("infer", "ask a model"),
    "scale": ("models", "set the number of replicas"),
    "delete": ("models", "drain, stop and remove a model"),
    "models": ("models", "list the models that you may ask"),
    "gpus": ("node", "list the GPUs and who uses them"),
    "node": ("node", "show the appliance"),
    "audit": ("audit", "show, verify and export what was done, by whom"),
    "key": ("keys", "create, list, change, rotate and revoke API keys"),
    "whoami": ("keys", "show who you are and what you may do"),
    "org": ("organizations", "create, list, change and remove organizations"),
    "role": ("roles", "list roles; create, change and remove your organization's own"),
    "member": ("members", "add, list, change and remove members and their roles"),
    "share": ("shares", "lend a model to others within limits, change that, take it back"),
    "usage": ("usage", "show who used a model, on which day and how much"),
    "image": ("images", "load, list and prune container images"),
    "secret": ("secrets", "keep, list and remove secrets; change the key that seals them"),
    "registry": ("registries", "keep, list and forget logins to image registries"),
}
INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `prsmctl` and return its exit code.

    0 done, 1 failed, 2 wrong usage, 3 the daemon does not run, 4 not found, 5 denied, 6 over a
    limit, 7 timed out, 78 wrong configuration, 130 interrupted.
    """
    try:
        code = _run(sys.argv[1:] if arguments is None else arguments)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Who read our output has left, as `head` does. Python would complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return code


def _run(arguments: Sequence[str]) -> int:
    first = _parser()
    chosen = first.parse_args(arguments)
    module = importlib.import_module(f"prsmd.cli.{_COMMANDS[chosen.command][0]}")
    add_arguments, run = module.COMMANDS[chosen.command]
    summary = _COMMANDS[chosen.command][1]
    second = argparse.ArgumentParser(
        prog=f"prsmctl {chosen.command}",
        description=summary[0].upper() + summary[1:] + ".",
        allow_abbrev=False,
    )
    add_arguments(second)
    add_global_options(second, inherit=True)
    args = second.parse_args(chosen.rest, namespace=chosen)

    from prsm_sdk.errors import PRSMError

    from .failures import report
    from .session import Session

    try:
        return int(run(Session.open(args), args))
    except PRSMError as error:
        return report(error)


def _parser() -> argparse.ArgumentParser:
    width = max(len(name) for name in _COMMANDS)
    parser = argparse.ArgumentParser(
        prog="prsmctl",
        usage="prsmctl [OPTIONS] COMMAND ...",
        description="Deploy, watch and ask models on a prsmd appliance.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="commands:\n"
        + "\n".join(f"  {name:{width}}  {does}" for name, (_, does) in _COMMANDS.items())
        + "\n\nprsmctl COMMAND --help tells more of each.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"prsmctl {__version__}")
    add_global_options(parser, inherit=False)
    parser.add_argument("command", choices=list(_COMMANDS), metavar="COMMAND", help="see below")
    parser.add_argument("rest", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
