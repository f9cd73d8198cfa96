"""Byte streams on whose message boundaries HTTP/1.1 parsers have been known to differ (RFC 9112)."""

from __future__ import annotations

from typing import NamedTuple

NEXT = b"GET /next HTTP/1.1\r\nHost: h\r\n\r\n"
CHUNKED = "Transfer-Encoding: chunked\r\n"
HELLO = "5\r\nhello\r\n0\r\n\r\n"


class Case(NamedTuple):
    """One stream; ``verdict`` is ours where it is part of the contract: ok, incomplete or refused."""

    name: str
    stream: bytes
    verdict: str | None


def raw(text: str) -> bytes:
    return text.encode("latin-1")


def post(fields: str, body: str = "", *, line: str = "POST /a HTTP/1.1") -> bytes:
    """A request with a host, and another one behind it to be found or swallowed."""
    return raw(f"{line}\r\nHost: h\r\n{fields}\r\n{body}") + NEXT


def get(line: str, fields: str = "Host: h\r\n") -> bytes:
    return raw(f"{line}\r\n{fields}\r\n") + NEXT


ACCEPTED = {
    "get": get("GET /a HTTP/1.1"),
    "get-alone": NEXT,
    "get-query": get("GET /a?b=c&d=%20;e HTTP/1.1"),
    "get-double-slash": get("GET //a//b HTTP/1.1"),
    "get-dots": get("GET /a/../b/./c HTTP/1.1"),
    "options-star": get("OPTIONS * HTTP/1.1"),
    "absolute-form": get("GET http://h/a HTTP/1.1"),
    "absolute-form-other-host": get("GET http://other:8080/a?b HTTP/1.1"),
    "delete": get("DELETE /a HTTP/1.1"),
    "head": get("HEAD /a HTTP/1.1"),
    "one-empty-line-first": b"\r\n" + NEXT,
    "empty-line-between": NEXT + b"\r\n" + NEXT,
    "no-space-after-colon": get("GET /a HTTP/1.1", "Host:h\r\n"),
    "spaces-around-value": get("GET /a HTTP/1.1", "Host: \t h \t\r\n"),
    "empty-value": get("GET /a HTTP/1.1", "Host: h\r\nX:\r\nY: \r\n"),
    "obs-text-value": get("GET /a HTTP/1.1", "Host: h\r\nX: \xe9\xff\r\n"),
    "tab-in-value": get("GET /a HTTP/1.1", "Host: h\r\nX: a\tb\r\n"),
    "colon-in-value": get("GET /a HTTP/1.1", "Host: h\r\nX: :a: b:\r\n"),
    "all-token-characters": get("GET /a HTTP/1.1", "Host: h\r\nX!#$%&'*+-.^_`|~1: a\r\n"),
    "host-port": get("GET /a HTTP/1.1", "Host: h:8443\r\n"),
    "host-ipv6": get("GET /a HTTP/1.1", "Host: [::1]:80\r\n"),
    "upper-names": get("GET /a HTTP/1.1", "HOST: h\r\nCONTENT-LENGTH: 0\r\n"),
    "length-zero": post("Content-Length: 0\r\n"),
    "length": post("Content-Length: 5\r\n", "hello"),
    "length-body-like-a-request": post(f"Content-Length: {len(NEXT)}\r\n", NEXT.decode()),
    "length-leading-zeros": post("Content-Length: 0005\r\n", "hello"),
    "length-on-get": post("Content-Length: 5\r\n", "hello", line="GET /a HTTP/1.1"),
    "length-spaces": post("Content-Length: \t 5 \t\r\n", "hello"),
    "length-binary": post("Content-Length: 6\r\n", "\0\r\n\r\n\xff"),
    "post-without-framing": post(""),
    "chunked": post(CHUNKED, HELLO),
    "chunked-empty": post(CHUNKED, "0\r\n\r\n"),
    "chunked-two": post(CHUNKED, "5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"),
    "chunked-upper-hex": post(CHUNKED, "A\r\n0123456789\r\n0\r\n\r\n"),
    "chunked-lower-hex": post(CHUNKED, "a\r\n0123456789\r\n0\r\n\r\n"),
    "chunked-leading-zeros": post(CHUNKED, "0005\r\nhello\r\n000\r\n\r\n"),
    "chunked-data-like-framing": post(CHUNKED, "7\r\n0\r\n\r\nab\r\n0\r\n\r\n"),
    "chunked-any-case": post("transfer-encoding: CHUNKED\r\n", HELLO),
    "chunked-spaces": post("Transfer-Encoding: \t chunked \r\n", HELLO),
    "chunked-on-get": post(CHUNKED, HELLO, line="GET /a HTTP/1.1"),
    "chunk-extension": post(CHUNKED, "5;a=b\r\nhello\r\n0\r\n\r\n"),
    "chunk-extension-quoted": post(CHUNKED, '5;a="b c"\r\nhello\r\n0\r\n\r\n'),
    "chunk-extension-name": post(CHUNKED, "5;a\r\nhello\r\n0;b\r\n\r\n"),
    "chunk-extensions": post(CHUNKED, "5;a=1;b=2\r\nhello\r\n0\r\n\r\n"),
    "trailer": post(CHUNKED, "5\r\nhello\r\n0\r\nX: y\r\n\r\n"),
    "trailers": post(CHUNKED, "5\r\nhello\r\n0\r\nX: y\r\nZ: \r\n\r\n"),
    "close-hides-the-next": post("Connection: close\r\nContent-Length: 0\r\n"),
    "http10": get("GET /a HTTP/1.0"),
    "http10-keep-alive": get("GET /a HTTP/1.0", "Host: h\r\nConnection: keep-alive\r\n"),
    "http10-without-host": raw("GET /a HTTP/1.0\r\n\r\n"),
    "pipelined-five": NEXT * 5,
    "pipelined-mixed": post(CHUNKED, HELLO) + post("Content-Length: 5\r\n", "hello"),
    "underscore-length": post("Content_Length: 5\r\n"),
    "x-length": post("X-Content-Length: 5\r\nX-Transfer-Encoding: chunked\r\n"),
}

UNFINISHED = {
    "half-request-line": raw("GET /a HT"),
    "half-head": raw("GET /a HTTP/1.1\r\nHost: h\r\n"),
    "half-final-crlf": raw("GET /a HTTP/1.1\r\nHost: h\r\n\r"),
    "half-length-body": raw("POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhell"),
    "length-swallows-the-next": post("Content-Length: 99\r\n", "hello"),
    "length-max": post("Content-Length: 9223372036854775807\r\n", "hello"),
    "half-chunk-size": raw(f"POST /a HTTP/1.1\r\nHost: h\r\n{CHUNKED}\r\n5"),
    "half-chunk-line": raw(f"POST /a HTTP/1.1\r\nHost: h\r\n{CHUNKED}\r\n5\r"),
    "half-chunk": raw(f"POST /a HTTP/1.1\r\nHost: h\r\n{CHUNKED}\r\n5\r\nhel"),
    "half-chunk-end": raw(f"POST /a HTTP/1.1\r\nHost: h\r\n{CHUNKED}\r\n5\r\nhello\r"),
    "half-last-chunk": raw(f"POST /a HTTP/1.1\r\nHost: h\r\n{CHUNKED}\r\n5\r\nhello\r\n0\r\n"),
    "half-trailer": raw(f"POST /a HTTP/1.1\r\nHost: h\r\n{CHUNKED}\r\n0\r\nX: y\r\n"),
    "whole-then-half": NEXT + raw("GET /b HTTP/1.1\r\nHo"),
    "only-crlf": b"\r\n",
}

LENGTHS = {
    "twice-alike": "Content-Length: 5\r\nContent-Length: 5\r\n",
    "twice-different": "Content-Length: 5\r\nContent-Length: 0\r\n",
    "twice-different-reversed": "Content-Length: 0\r\nContent-Length: 5\r\n",
    "listed-alike": "Content-Length: 5, 5\r\n",
    "listed-different": "Content-Length: 5, 0\r\n",
    "trailing-comma": "Content-Length: 5,\r\n",
    "empty": "Content-Length:\r\n",
    "plus": "Content-Length: +5\r\n",
    "minus": "Content-Length: -5\r\n",
    "minus-zero": "Content-Length: -0\r\n",
    "hex": "Content-Length: 0x5\r\n",
    "octal": "Content-Length: 0o5\r\n",
    "float": "Content-Length: 5.0\r\n",
    "exponent": "Content-Length: 5e0\r\n",
    "underscore": "Content-Length: 0_5\r\n",
    "inner-space": "Content-Length: 0 5\r\n",
    "words-after": "Content-Length: 5 bytes\r\n",
    "quoted": 'Content-Length: "5"\r\n',
    "arabic-digit": "Content-Length: \xd9\xa5\r\n",
    "superscript": "Content-Length: \xb2\r\n",
    "vertical-tab": "Content-Length: \x0b5\r\n",
    "form-feed-after": "Content-Length: 5\x0c\r\n",
    "nbsp": "Content-Length: \xa05\r\n",
    "nul": "Content-Length: 5\x00\r\n",
    "overflow-64": "Content-Length: 18446744073709551621\r\n",
    "overflow-wraps-to-5": "Content-Length: 340282366920938463463374607431768211461\r\n",
    "overflow-32-digits": "Content-Length: 99999999999999999999999999999999\r\n",
    "space-before-colon": "Content-Length : 5\r\n",
    "tab-before-colon": "Content-Length\t: 5\r\n",
    "folded-value": "Content-Length:\r\n 5\r\n",
    "folded-continuation": "Content-Length: 0\r\n 5\r\n",
    "hidden-by-fold": "X: a\r\n Content-Length: 5\r\n",
    "hidden-by-bare-cr": "X: a\rContent-Length: 5\r\n",
    "after-bare-lf": "X: a\nContent-Length: 5\r\n",
    "bare-lf": "Content-Length: 5\n",
    "leading-space-name": " Content-Length: 5\r\n",
    "nul-in-name": "Content-Length\x00: 5\r\n",
    "name-with-nbsp": "Content-Length\xa0: 5\r\n",
    "control-before-name": "\x0bContent-Length: 5\r\n",
}

CODINGS = {
    "with-length": "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
    "before-length": "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
    "twice": "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
    "twice-in-list": "Transfer-Encoding: chunked, chunked\r\n",
    "gzip-then-chunked": "Transfer-Encoding: gzip, chunked\r\n",
    "chunked-then-gzip": "Transfer-Encoding: chunked, gzip\r\n",
    "two-lines": "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n",
    "two-lines-reversed": "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
    "identity": "Transfer-Encoding: identity\r\n",
    "identity-with-length": "Transfer-Encoding: identity\r\nContent-Length: 5\r\n",
    "identity-then-chunked": "Transfer-Encoding: identity, chunked\r\n",
    "unknown": "Transfer-Encoding: xchunked\r\n",
    "unknown-with-length": "Transfer-Encoding: x\r\nContent-Length: 5\r\n",
    "suffix": "Transfer-Encoding: chunkedx\r\n",
    "empty": "Transfer-Encoding:\r\n",
    "empty-with-length": "Transfer-Encoding:\r\nContent-Length: 5\r\n",
    "leading-comma": "Transfer-Encoding: , chunked\r\n",
    "trailing-comma": "Transfer-Encoding: chunked,\r\n",
    "parameter": "Transfer-Encoding: chunked;q=1\r\n",
    "quoted": 'Transfer-Encoding: "chunked"\r\n',
    "vertical-tab": "Transfer-Encoding: \x0bchunked\r\n",
    "form-feed": "Transfer-Encoding: chunked\x0c\r\n",
    "nul": "Transfer-Encoding: chunked\x00\r\n",
    "nbsp": "Transfer-Encoding: \xa0chunked\r\n",
    "next-line": "Transfer-Encoding: chunked\x85\r\n",
    "space-before-colon": "Transfer-Encoding : chunked\r\n",
    "space-before-colon-with-length": "Transfer-Encoding : chunked\r\nContent-Length: 5\r\n",
    "folded-value": "Transfer-Encoding:\r\n chunked\r\n",
    "folded-list": "Transfer-Encoding: gzip,\r\n\tchunked\r\n",
    "bare-lf": "Transfer-Encoding: chunked\n",
    "bare-cr": "Transfer-Encoding: chunked\r",
    "after-bare-lf": "X: a\nTransfer-Encoding: chunked\r\n",
    "after-bare-cr": "X: a\rTransfer-Encoding: chunked\r\n",
    "underscore-beside-length": "Transfer_Encoding: chunked\r\nContent-Length: 5\r\nContent-Length: 5\r\n",
    "leading-space-name": " Transfer-Encoding: chunked\r\n",
    "inner-space": "Transfer-Encoding: chun ked\r\n",
}

CHUNKS = {
    "size-plus": "+5\r\nhello\r\n0\r\n\r\n",
    "size-minus": "-5\r\nhello\r\n0\r\n\r\n",
    "size-0x": "0x5\r\nhello\r\n0\r\n\r\n",
    "size-underscore": "0_5\r\nhello\r\n0\r\n\r\n",
    "size-space-before": " 5\r\nhello\r\n0\r\n\r\n",
    "size-space-after": "5 \r\nhello\r\n0\r\n\r\n",
    "size-tab-after": "5\t\r\nhello\r\n0\r\n\r\n",
    "size-space-before-extension": "5 ;a=b\r\nhello\r\n0\r\n\r\n",
    "size-empty": "\r\nhello\r\n0\r\n\r\n",
    "size-only-extension": ";a=b\r\nhello\r\n0\r\n\r\n",
    "size-no-hex": "g\r\nhello\r\n0\r\n\r\n",
    "size-hex-then-word": "5x\r\nhello\r\n0\r\n\r\n",
    "size-overflow-wraps-to-5": "10000000000000005\r\nhello\r\n0\r\n\r\n",
    "size-17-digits": "00000000000000005\r\nhello\r\n0\r\n\r\n",
    "size-many-zeros": "0" * 300 + "5\r\nhello\r\n0\r\n\r\n",
    "size-nul": "5\x00\r\nhello\r\n0\r\n\r\n",
    "size-quoted": '"5"\r\nhello\r\n0\r\n\r\n',
    "size-arabic-digit": "\xd9\xa5\r\nhello\r\n0\r\n\r\n",
    "size-comma": "5,a\r\nhello\r\n0\r\n\r\n",
    "line-bare-lf": "5\nhello\r\n0\r\n\r\n",
    "line-bare-cr": "5\rhello\r\n0\r\n\r\n",
    "line-cr-cr-lf": "5\r\r\nhello\r\n0\r\n\r\n",
    "line-cr-x-lf": "5\rX\nhello\r\n0\r\n\r\n",
    "extension-bare-lf": "5;a\nhello\r\n0\r\n\r\n",
    "extension-bare-lf-hides-a-chunk": "5;\n2\r\nab\r\n0\r\n\r\n",
    "extension-bare-cr": "5;a\rb\r\nhello\r\n0\r\n\r\n",
    "extension-nul": "5;a\x00b\r\nhello\r\n0\r\n\r\n",
    "extension-quoted-lf": '5;a="\n"\r\nhello\r\n0\r\n\r\n',
    "extension-quoted-crlf": '5;a="\r\n0\r\n\r\n',
    "data-too-long": "5\r\nhello!\r\n0\r\n\r\n",
    "data-too-short": "6\r\nhello\r\n0\r\n\r\n",
    "data-end-bare-lf": "5\r\nhello\n0\r\n\r\n",
    "data-end-bare-cr": "5\r\nhello\r0\r\n\r\n",
    "data-end-two-bytes": "5\r\nhelloXX0\r\n\r\n",
    "data-end-missing": "5\r\nhello0\r\n\r\n",
    "last-bare-lf": "5\r\nhello\r\n0\n\r\n",
    "last-bare-lf-lf": "5\r\nhello\r\n0\n\n",
    "last-end-bare-lf": "5\r\nhello\r\n0\r\n\n",
    "last-end-bare-cr": "5\r\nhello\r\n0\r\n\rX",
    "last-end-two-bytes": "5\r\nhello\r\n0\r\nXX",
    "trailer-without-colon": "0\r\nX\r\n\r\n",
    "trailer-empty-name": "0\r\n: y\r\n\r\n",
    "trailer-space-before-colon": "0\r\nX : y\r\n\r\n",
    "trailer-leading-space": "0\r\n X: y\r\n\r\n",
    "trailer-folded": "0\r\nX: y\r\n z\r\n\r\n",
    "trailer-bare-lf": "0\r\nX: y\n\r\n",
    "trailer-bare-cr": "0\r\nX: y\rZ: a\r\n\r\n",
    "trailer-nul": "0\r\nX: \x00\r\n\r\n",
    "trailer-hides-a-request": "0\r\nX: y\n\nGET /hidden HTTP/1.1\r\nHost: h\r\n\r\n",
}

HEADS = {
    "two-empty-lines-first": b"\r\n\r\n" + NEXT,
    "bare-lf-first": b"\n" + NEXT,
    "space-first": b" " + NEXT,
    "bare-lf-everywhere": NEXT.replace(b"\r\n", b"\n"),
    "bare-lf-request-line": NEXT.replace(b"1.1\r\n", b"1.1\n"),
    "bare-lf-end": b"GET /a HTTP/1.1\r\nHost: h\r\n\n" + NEXT,
    "bare-lf-lf-end": b"GET /a HTTP/1.1\r\nHost: h\n\n" + NEXT,
    "bare-cr-end": b"GET /a HTTP/1.1\r\nHost: h\r\n\rGET /b HTTP/1.1\r\n\r\n",
    "cr-cr-lf": b"GET /a HTTP/1.1\r\r\nHost: h\r\n\r\n" + NEXT,
    "two-spaces": get("GET  /a HTTP/1.1"),
    "two-spaces-later": get("GET /a  HTTP/1.1"),
    "tab-delimited": get("GET\t/a\tHTTP/1.1"),
    "vertical-tab-delimited": get("GET\x0b/a\x0bHTTP/1.1"),
    "space-in-target": get("GET /a b HTTP/1.1"),
    "space-at-the-end": get("GET /a HTTP/1.1 "),
    "nul-in-target": get("GET /a\x00b HTTP/1.1"),
    "control-in-target": get("GET /a\x01 HTTP/1.1"),
    "obs-text-in-target": get("GET /\xe9 HTTP/1.1"),
    "fragment-in-target": get("GET /a#b HTTP/1.1"),
    "backslash-in-target": get("GET \\a HTTP/1.1"),
    "relative-target": get("GET a HTTP/1.1"),
    "star-target": get("GET * HTTP/1.1"),
    "empty-target": get("GET  HTTP/1.1"),
    "missing-version": get("GET /a"),
    "http09": raw("GET /a\r\n\r\n"),
    "version-2": get("GET /a HTTP/2.0"),
    "version-1.2": get("GET /a HTTP/1.2"),
    "version-01.1": get("GET /a HTTP/01.1"),
    "version-1.10": get("GET /a HTTP/1.10"),
    "version-lower": get("GET /a http/1.1"),
    "version-icy": get("GET /a ICY/1.1"),
    "method-separator": get("GE(T /a HTTP/1.1"),
    "method-control": get("GE\x01T /a HTTP/1.1"),
    "method-empty": get(" /a HTTP/1.1"),
    "host-missing": get("GET /a HTTP/1.1", ""),
    "host-twice": get("GET /a HTTP/1.1", "Host: h\r\nHost: h\r\n"),
    "host-two-different": get("GET /a HTTP/1.1", "Host: h\r\nHost: g\r\n"),
    "host-list": get("GET /a HTTP/1.1", "Host: h, g\r\n"),
    "host-space": get("GET /a HTTP/1.1", "Host: h g\r\n"),
    "host-path": get("GET /a HTTP/1.1", "Host: h/x\r\n"),
    "host-userinfo": get("GET /a HTTP/1.1", "Host: u@h\r\n"),
    "host-empty": get("GET /a HTTP/1.1", "Host:\r\n"),
    "host-port-word": get("GET /a HTTP/1.1", "Host: h:x\r\n"),
    "host-folded": get("GET /a HTTP/1.1", "Host: h\r\n g\r\n"),
    "name-empty": get("GET /a HTTP/1.1", "Host: h\r\n: a\r\n"),
    "name-without-colon": get("GET /a HTTP/1.1", "Host: h\r\nX\r\n"),
    "name-space": get("GET /a HTTP/1.1", "Host: h\r\nX Y: a\r\n"),
    "name-quoted": get("GET /a HTTP/1.1", 'Host: h\r\n"X": a\r\n'),
    "name-obs-text": get("GET /a HTTP/1.1", "Host: h\r\nX\xe9: a\r\n"),
    "name-brackets": get("GET /a HTTP/1.1", "Host: h\r\nX[]: a\r\n"),
    "first-field-folded": get("GET /a HTTP/1.1", " X: a\r\nHost: h\r\n"),
    "value-nul": get("GET /a HTTP/1.1", "Host: h\r\nX: a\x00b\r\n"),
    "value-control": get("GET /a HTTP/1.1", "Host: h\r\nX: a\x01b\r\n"),
    "value-delete": get("GET /a HTTP/1.1", "Host: h\r\nX: a\x7fb\r\n"),
    "value-bare-cr": get("GET /a HTTP/1.1", "Host: h\r\nX: a\rb\r\n"),
    "value-bare-lf": get("GET /a HTTP/1.1", "Host: h\r\nX: a\nb: c\r\n"),
    "value-folded": get("GET /a HTTP/1.1", "Host: h\r\nX: a\r\n b\r\n"),
    "value-folded-empty": get("GET /a HTTP/1.1", "Host: h\r\nX: a\r\n \r\n"),
    "http10-chunked": post(CHUNKED, HELLO, line="POST /a HTTP/1.0"),
    "http10-chunked-keep-alive": post(f"Connection: keep-alive\r\n{CHUNKED}", HELLO, line="POST /a HTTP/1.0"),
    "http10-chunked-with-length": post(f"{CHUNKED}Content-Length: 5\r\n", HELLO, line="POST /a HTTP/1.0"),
    "connect-with-length": post("Content-Length: 5\r\n", "hello", line="CONNECT h:443 HTTP/1.1"),
    "too-many-fields": get("GET /a HTTP/1.1", "Host: h\r\n" + "X: a\r\n" * 500),
    "head-too-large": get("GET /a HTTP/1.1", "Host: h\r\nX: " + "a" * 70_000 + "\r\n"),
    "tls-hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + NEXT,
    "http2-preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "second-is-garbage": NEXT + b"\x00\x01\x02\r\n\r\n",
}


def corpus() -> list[Case]:
    cases = [Case(name, stream, "ok") for name, stream in ACCEPTED.items()]
    cases += [Case(name, stream, "incomplete") for name, stream in UNFINISHED.items()]
    for name, fields in LENGTHS.items():
        cases.append(Case(f"length-{name}", post(fields, "hello"), "refused"))
    for name, fields in CODINGS.items():
        cases.append(Case(f"coding-{name}", post(fields, HELLO), "refused"))
    for name, body in CHUNKS.items():
        cases.append(Case(f"chunk-{name}", post(CHUNKED, body), None if name in LENIENT else "refused"))
    cases += [Case(f"head-{name}", stream, "refused") for name, stream in HEADS.items()]
    return cases


#: Streams whose verdict depends on where the bytes after them happen to end.
LENIENT = {"data-too-short"}
