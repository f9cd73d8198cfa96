"""Tries destinations, and prints what each answered: `knock.py tcp:HOST:PORT udp:HOST:PORT ...`.

A word is what was answered, `refused` an error at once, `silent` none within seconds.
"""

import socket
import sys
import threading

SECONDS = 2.5


def knock(spec: str) -> str:
    kind, rest = spec.split(":", 1)
    host, port = rest.rsplit(":", 1)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM) as one:
        one.settimeout(SECONDS)
        try:
            one.connect((host, int(port)))
            if kind == "udp":
                one.send(b"?")
            return one.recv(64).decode() or "nothing"
        except TimeoutError:
            return "silent"
        except OSError:
            return "refused"


def main() -> None:
    answers: dict[str, str] = {}
    threads = [threading.Thread(target=lambda spec=spec: answers.update({spec: knock(spec)})) for spec in sys.argv[1:]]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    for spec in sys.argv[1:]:
        print(spec, answers[spec])


if __name__ == "__main__":
    main()
