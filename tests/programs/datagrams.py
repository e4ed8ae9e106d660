"""Datagrams for the tests: `serve PORT` at one end, `probe ADDRESS PORT [PART ...]` at the other, which prints a line for each thing that it
tries.

The server does what the first byte of a datagram says: `e` sends it back, `p` tells the port that it came from, `o` answers from another
port than it was sent to, and anything else is not answered. It has PORT and the next one. At PORT, it also takes TCP connections: then it is ready.
"""
import errno, select, socket, sys, threading

LARGEST = {socket.AF_INET: 65_507, socket.AF_INET6: 65_488}  # what IPv4 leaves, and IPv6 in a packet of 65,536 bytes (the loopback's)
SHORT, LONG = 1, 10  # seconds
RECVERR = {socket.AF_INET: (socket.IPPROTO_IP, 11), socket.AF_INET6: (socket.IPPROTO_IPV6, 25)}


def bound(port):
    server = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    server.bind(("", port))
    return server


def attend(server, other):
    while True:
        data, peer = server.recvfrom(1 << 16)
        match data[:1]:
            case b"e":
                server.sendto(data, peer)
            case b"p":
                server.sendto(str(peer[1]).encode(), peer)
            case b"o":
                other.sendto(data, peer)


def serve(port):
    one, other = bound(port), bound(port + 1)
    for pair in (one, other), (other, one):
        threading.Thread(target=attend, args=pair).start()
    listener = socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
    while True:
        listener.accept()[0].close()


def plain(family=None):
    s = socket.socket(family or FAMILY, socket.SOCK_DGRAM)
    s.settimeout(LONG)
    return s


def connected(address):
    s = plain()
    s.connect(address)
    return s


def is_from(s, address):
    return s.recvfrom(100)[1][:2] == address


def named(action):
    """What an action comes to: its value, or the error's name."""
    try:
        return action()
    except TimeoutError:
        return "nothing"
    except OSError as error:
        return errno.errorcode[error.errno]


def sizes(address):
    s = connected(address)
    for size in 1, 2, 512, 1200, 1473, 9000, 32_000, LARGEST[FAMILY]:
        data = b"e" + bytes(range(256)) * 256
        s.send(data[:size])
        yield f"{size} bytes: {named(lambda: s.recv(1 << 16) == data[:size])}"
    yield f"too large: {named(lambda: s.send(bytes(65_536)))}"
    yield f"the peer: {s.getpeername()[:2] == address}"


def several_peers(address):
    s, other = plain(), (address[0], address[1] + 1)
    ports = set()
    for peer in address, other, address:
        s.sendto(b"p", peer)
        data, whence = s.recvfrom(100)
        ports.add(data)
        yield f"from the peer: {whence[:2] == peer}"
    yield f"ports: {len(ports)}"
    s.sendto(b"o", address)
    yield f"from another port: {named(lambda: is_from(s, other))}"
    s = plain()
    s.sendto(b"o", address)
    named(lambda: s.recvfrom(100))
    # It has spoken first.
    s.sendto(b"e", other)
    yield f"to another port: {named(lambda: is_from(s, other))}"
    s = connected(address)
    s.settimeout(SHORT)
    s.send(b"o")
    yield f"from another port, to a connected one: {named(lambda: s.recv(100))}"


def same_port(address):
    """As both ends of some protocols have it, which makes no difference to either."""
    s = plain()
    s.bind(("", address[1]))
    s.sendto(b"p", address)
    yield f"the peer's own port: {named(lambda: is_from(s, address))}"
    s.connect(address)
    s.send(b"e")
    yield f"connected: {named(lambda: s.recv(100))}"
    again = plain()
    yield f"the port is free for nobody else: {named(lambda: again.bind(('', address[1])))}"
    s.close()
    yield f"and then it is: {named(lambda: again.bind(('', address[1])))}"


def many_sockets(address):
    sockets = [connected(address) for _ in range(200)]
    for number, s in enumerate(sockets):
        s.send(b"e%d" % number)
    right = sum(named(lambda: s.recv(100)) == b"e%d" % number for number, s in enumerate(sockets))
    yield f"{right} of {len(sockets)} sockets"


def nobody(address):
    closed = (address[0], address[1] + 2)
    s = connected(closed)
    s.send(b"anybody?")
    yield f"at a closed port: {named(lambda: s.recv(100))}"
    s.send(b"anybody?")
    select.select([s], [], [], LONG)
    yield f"and sending: {named(lambda: s.send(b'anybody?'))}"
    s = plain()
    s.settimeout(SHORT)
    s.sendto(b"anybody?", closed)
    yield f"without being connected: {named(lambda: s.recv(100))}"
    s.sendto(b"e", address)
    yield f"and then: {named(lambda: s.recv(100))}"
    s = plain()
    s.setsockopt(*RECVERR[FAMILY], 1)
    s.sendto(b"anybody?", closed)
    yield f"with the queue of errors: {named(lambda: s.recv(100))}"
    queued = named(lambda: s.recvmsg(100, 512, socket.MSG_ERRQUEUE))
    code, origin, kind = int.from_bytes(queued[1][0][2][:4], "little"), *queued[1][0][2][4:6]
    yield f"in which is: {errno.errorcode[code]}, {origin}, {kind}, {queued[3][:2] == closed}"
    s = connected(address)
    s.settimeout(SHORT)
    s.send(b"silence")
    yield f"no answer: {named(lambda: s.recv(100))}"


def mapped(address):
    if FAMILY == socket.AF_INET:
        s, by_mapped = plain(socket.AF_INET6), (f"::ffff:{address[0]}", address[1])
        s.sendto(b"e", by_mapped)
        yield f"by a mapped address: {named(lambda: is_from(s, by_mapped))}"
        with socket.create_connection(by_mapped, LONG) as connection:
            yield f"and for a connection: {connection.getpeername()[:2] == by_mapped}, {connection.recv(1)}"


def in_a_row(address):
    """Of the size that QUIC begins with, never in fragments, and a few on their way at a time."""
    window, count, size = 16, 2000, 1200
    s = connected(address)
    s.setsockopt(socket.IPPROTO_IP, 10, 2)  # IP_MTU_DISCOVER, IP_PMTUDISC_DO
    pending = set()
    for number in range(count):
        data = (b"e%d" % number).ljust(size)
        s.send(data)
        pending.add(data)
        while len(pending) >= (window if number + 1 < count else 1):
            back = named(lambda: s.recv(1 << 16))
            if back not in pending:
                yield f"after {number}: {back}"
                return
            pending.remove(back)
    yield f"{count} of {size} bytes"


match sys.argv[1:]:
    case ["serve", port]:
        serve(int(port))
    case ["probe", address, port, *parts]:
        FAMILY = socket.AF_INET6 if ":" in address else socket.AF_INET
        for part in sizes, several_peers, same_port, many_sockets, in_a_row, nobody, mapped:
            if not parts or part.__name__ in parts:
                for line in part((address, int(port))):
                    print(f"{part.__name__}: {line}", flush=True)
