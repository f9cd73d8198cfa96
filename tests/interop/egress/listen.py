"""Says a word to everybody who connects, and to every datagram: `listen.py WORD ADDRESS,ADDRESS PORT,PORT`."""

import selectors
import socket
import sys

# linux/in6.h: an address that is answered by a route alone may be bound, too.
IPV6_FREEBIND = 78


def main() -> None:
    word, addresses, ports = sys.argv[1].encode(), sys.argv[2].split(","), sys.argv[3].split(",")
    found = selectors.DefaultSelector()
    for address in addresses:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        for port in map(int, ports):
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                one = socket.socket(family, kind)
                one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                    one.setsockopt(socket.IPPROTO_IPV6, IPV6_FREEBIND, 1)
                one.bind((address, port))
                if kind == socket.SOCK_STREAM:
                    one.listen(64)
                found.register(one, selectors.EVENT_READ)
    print("ready", flush=True)
    while True:
        for key, _ in found.select():
            one = key.fileobj
            if one.type == socket.SOCK_STREAM:
                peer, _ = one.accept()
                peer.sendall(word)
                peer.close()
            else:
                _, peer = one.recvfrom(64)
                one.sendto(word, peer)


if __name__ == "__main__":
    main()
