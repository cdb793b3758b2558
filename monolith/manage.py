"""Django's command line: `python -m monolith.manage COMMAND`, or `python monolith/manage.py COMMAND`."""

import os
import sys
from pathlib import Path


def main() -> None:
    """Run the command named in `sys.argv`."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "monolith.config.settings")
    if not __package__:  # started as a file: its folder is on the path, the package's parent is not
        sys.path[0] = str(Path(__file__).resolve().parent.parent)
    from django.core.management import execute_from_command_line  # noqa: PLC0415  (after sys.path is right)

    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
