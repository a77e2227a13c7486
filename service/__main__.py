"""The command ``levelsync`` (also ``python -m service``)."""

import sys


def main() -> None:
    """Run the command line. Without the extra ``service``, print what to install and exit 2."""
    try:
        from service.cli import app  # noqa: PLC0415 - the base package does not install its libraries
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in {"service", "events"}:
            raise
        sys.exit(_print_what_to_install(error.name or "a library"))
    app(prog_name="levelsync")


def _print_what_to_install(missing: str) -> int:
    sys.stderr.write(f"levelsync: {missing} is not installed. Run: pip install 'levelsync[service]'\n")
    return 2


if __name__ == "__main__":
    main()
