"""The legitimate rows that are about addresses: an Internet of our own is where they can be dialled."""

import ipaddress

from tests.system.doors import Row, rows


def address(text: str) -> str | None:
    """An address in a row's notation, without brackets."""
    try:
        return str(ipaddress.ip_address(text.strip("[]")))
    except ValueError:
        return None


def written() -> list[Row]:
    """Rows whose host is an address."""
    return [row for row in rows("egress_legitimate.tsv") if row.form in {"connect", "http"} and address(row.rest[0])]


def names() -> dict[str, list[str]]:
    """A name for each address that a name could lead to."""
    found = [row.data.decode() for row in rows("egress_legitimate.tsv") if row.form == "address"]
    return {f"row-{number}.example.com": [text] for number, text in enumerate(found)}


def endpoints() -> list[dict]:
    """The endpoints that the rows need; addresses that are one once are listed once."""
    found = {(address(row.rest[0]) or "", int(row.rest[1])) for row in written()}
    return [{"host": host, "port": port} for host, port in sorted(found)]
