"""A piece of Internet: HTTPS on 443 and HTTP on 80 over every address of its namespace, serving the files of a folder.

    python -m tests.interop.egress.site FOLDER CERTIFICATE KEY

Every answer names the host that the client asked for in `x-site`. `POST /echo` gives the body back.
"""

import functools
import http.server
import socket
import ssl
import sys
import threading


class Handler(http.server.SimpleHTTPRequestHandler):
    """Files, and an echo."""

    protocol_version = "HTTP/1.1"

    def end_headers(self) -> None:
        self.send_header("x-site", self.headers.get("host", ""))
        super().end_headers()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", "0")))
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


class Server(http.server.ThreadingHTTPServer):
    """Over IPv6 and IPv4."""

    address_family = socket.AF_INET6
    daemon_threads = True
    request_queue_size = 128

    def server_bind(self) -> None:
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()

    def handle_error(self, *_: object) -> None:
        """A client that breaks off is the test's own doing."""


class Secure(Server):
    """Over TLS; the handshake is the connection's own thread's work."""

    def __init__(self, *arguments: object, context: ssl.SSLContext) -> None:
        self.context = context
        super().__init__(*arguments)  # type: ignore[arg-type]

    def finish_request(self, request: socket.socket, client_address: object) -> None:  # type: ignore[override]
        super().finish_request(self.context.wrap_socket(request, server_side=True), client_address)


def main(folder: str, certificate: str, key: str) -> None:
    """Serves until ended."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    handler = functools.partial(Handler, directory=folder)
    secure = Secure(("::", 443), handler, context=context)
    threading.Thread(target=secure.serve_forever, daemon=True).start()
    plain = Server(("::", 80), handler)
    print("ready", flush=True)
    plain.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
