"""``secateur doctor``: does everything work here?"""

import sys

from secateur.cli.options import Json


def doctor(json: Json = None) -> None:
    """Check the installation: versions, extras, and one small removal, export and run on every runtime."""
    from secateur.cli.options import write_json
    from secateur.cli.show import show_checks
    from secateur.health import examine

    record = examine()
    show_checks(record)
    write_json(json, record)
    if not record["passed"]:
        sys.exit(1)
