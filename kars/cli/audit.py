"""`kars audit`: whether the record of what happened is whole."""

from __future__ import annotations

import click

from kars.cli import output

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kars.router.tools import AuditReport

EPILOG = """\b
Examples:
  kars audit verify /var/log/kars/audit
  kars audit verify ./audit -o json
"""

ADVICE = (
    "Records before that line are intact; from there on the log proves nothing. Copy the whole directory aside "
    "before the router writes more, and compare it with your last good copy."
)


@click.group()
def audit() -> None:
    """Check the audit log."""


@audit.command(epilog=EPILOG)
@click.argument("directory", type=click.Path())
@output.option
def verify(directory: str, form: str) -> int:
    """Verify the hash chain, the sequence and the file order of the audit log in DIRECTORY.

    The exit status is 0 when it is whole and 1 when it is broken.
    """
    import msgspec

    from kars.router import tools

    report = tools.verify_audit(directory)
    if form == "json":
        fields = msgspec.to_builtins(report)
        output.document("AuditReport", {"directory": directory, "ok": report.broken is None, **fields})
    else:
        show(directory, report)
    return 0 if report.broken is None else 1


def show(directory: str, report: AuditReport) -> None:
    """Print the report for people."""
    rows = [
        ("directory", directory),
        ("files", str(report.files)),
        ("records", str(report.records)),
        ("lost", str(report.lost)),
        ("first", place(report.first_seq, report.first_ts)),
        ("last", place(report.last_seq, report.last_ts)),
        ("head", report.head or "-"),
    ]
    if report.broken is None:
        output.table([*rows, ("chain", output.styled("OK", "good"))])
        return
    where = f"{report.broken.file}:{report.broken.line}: {report.broken.what}"
    output.table([*rows, ("chain", output.styled("BROKEN", "bad")), ("at", where)])
    click.echo(f"hint: {ADVICE}", err=True)


def place(number: int | None, moment: str | None) -> str:
    """Write a record's number and time."""
    return "-" if number is None else f"{number}  {moment or ''}".rstrip()
