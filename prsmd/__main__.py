"""The entry of the daemon: signals are heard first, for to read its modules takes a second."""

from prsmd.signals import Received


def main() -> None:
    """Run the daemon from the command line; see `prsmd --help`."""
    received = Received()
    from prsmd import daemon  # noqa: PLC0415 - not before signals are heard

    daemon.main(received)


if __name__ == "__main__":
    main()
