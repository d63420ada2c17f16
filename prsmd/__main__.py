"""Entry point of the daemon. Handles signals first: importing the daemon takes a second."""

from prsmd.signals import Received


def main() -> None:
    """Run the daemon from the command line; see `prsmd --help`."""
    received = Received()
    from prsmd import daemon  # noqa: PLC0415 - signals are handled before it is imported

    daemon.main(received)


if __name__ == "__main__":
    main()
