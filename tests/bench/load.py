"""The two ends of the benchmark's load: `serve PORT` in a pod, and wherever a way to it begins `up_1 HOST PORT`, `down_1`, `up_8`, `down_8` and
`calls`, which print what they measured. `alone` has both ends in one place: what this program can do without any way between them. `small NAME ADDRESS
PORT [datagrams]` measures what is small: queries for NAME, connections to it, and datagrams to ADDRESS.

A connection carries requests, each a letter and a length (8 bytes, big endian): `s` sends that much to the server, which then answers
one byte; `g` gets that much from it; `e` has everything from there on echoed. No end of a direction is needed: not every way carries one.
"""
import contextlib, json, os, secrets, signal, socket, statistics, sys, threading, time
from concurrent.futures import ThreadPoolExecutor

BULK = 256 << 20  # of one measurement, over all of its streams
BULKS = "up_1", "down_1", "up_8", "down_8"
PIECE = 16 << 20  # of one request while pings are timed: the last ones are waited for
CHUNK = 256 << 10
PINGS = 500
SECONDS = {"pings": 4, "connections": 2, "datagrams": 3}
DATAGRAM = 1200
RATES = 1000, 5000, 10_000, 20_000  # datagrams per second
# A way that stands still is an error, not a figure.
socket.setdefaulttimeout(60)


def receive(connection, count):
    buffer = bytearray(CHUNK)
    while count:
        n = connection.recv_into(buffer, min(count, CHUNK))
        if n == 0:
            raise EOFError
        count -= n


def send(connection, count):
    chunk = bytes(CHUNK)
    for _ in range(count // CHUNK):
        connection.sendall(chunk)


def exactly(connection, count):
    data = b""
    while len(data) < count:
        piece = connection.recv(count - len(data))
        if not piece:
            raise EOFError
        data += piece
    return data


def attend(connection):
    # The other end may leave in any way that a way has.
    with connection, contextlib.suppress(EOFError, OSError):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while True:
            header = exactly(connection, 9)
            kind, count = header[:1], int.from_bytes(header[1:], "big")
            if kind == b"s":
                receive(connection, count)
                connection.sendall(b"!")
            elif kind == b"g":
                send(connection, count)
            else:
                while data := connection.recv(CHUNK):
                    connection.sendall(data)
                return


def listen(port):
    return socket.create_server(("", port), backlog=1024)


def send_back(port):
    server = datagram_socket()
    server.bind(("", port))
    server.settimeout(None)
    while True:
        data, peer = server.recvfrom(1 << 16)
        server.sendto(data, peer)


def datagram_socket():
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    return s


def serve(listener):
    # Ways that are not in use leave it waiting for long.
    listener.settimeout(None)
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=attend, args=(connection,), daemon=True).start()


class Way:
    def __init__(self, host, port):
        # Looked up once: other ways have no name to look up.
        self.address = socket.getaddrinfo(host, port, socket.AF_INET, socket.SOCK_STREAM)[0][4]

    def connect(self):
        connection = socket.create_connection(self.address)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def up(self, connection, count):
        connection.sendall(b"s" + count.to_bytes(8, "big"))
        send(connection, count)
        exactly(connection, 1)

    def down(self, connection, count):
        connection.sendall(b"g" + count.to_bytes(8, "big"))
        receive(connection, count)

    def throughput(self, move, streams):
        def one(_):
            with self.connect() as connection:
                move(connection, BULK // streams)

        start = time.monotonic()
        with ThreadPoolExecutor(streams) as pool:
            list(pool.map(one, range(streams)))
        return (BULK >> 20) / (time.monotonic() - start)

    def pings(self, count, seconds):
        times, end = [], time.monotonic() + seconds
        with self.connect() as connection:
            connection.sendall(b"e" + bytes(8))
            while len(times) < count and time.monotonic() < end:
                start = time.monotonic()
                connection.sendall(bytes(64))
                exactly(connection, 64)
                times.append((time.monotonic() - start) * 1000)
        return statistics.median(times), statistics.quantiles(times, n=100, method="inclusive")[98], max(times)

    def pings_among_bulk(self):
        """Pings while one stream runs up and one down, and how much these move meanwhile."""
        over = threading.Event()

        def flow(move, runs):
            moved, start = 0, time.monotonic()
            try:
                with self.connect() as connection:
                    while not over.is_set():
                        move(connection, PIECE)
                        moved += PIECE >> 20
                        runs.set()
                return moved / (time.monotonic() - start)
            finally:
                runs.set()

        with ThreadPoolExecutor(2) as pool:
            running = threading.Event(), threading.Event()
            flows = [pool.submit(flow, move, runs) for move, runs in zip((self.up, self.down), running)]
            try:
                for runs in running:
                    runs.wait()
                times = self.pings(sys.maxsize, SECONDS["pings"])
            finally:
                over.set()
            return times, sum(flow.result() for flow in flows)

    def connections(self, at_once):
        """New connections per second: each is waited for until it has echoed a byte."""
        start = time.monotonic()
        end = start + SECONDS["connections"]

        def one(_):
            count = 0
            while time.monotonic() < end:
                with self.connect() as connection:
                    connection.sendall(b"e" + bytes(8) + b"?")
                    exactly(connection, 1)
                count += 1
            return count

        with ThreadPoolExecutor(at_once) as pool:
            return sum(pool.map(one, range(at_once))) / (time.monotonic() - start)

    def bulk(self, what):
        direction, streams = what.split("_")
        return {what: self.throughput(getattr(self, direction), int(streams)), "gib": BULK / (1 << 30)}

    def calls(self):
        idle = self.pings(PINGS, SECONDS["pings"])
        loaded, moved = self.pings_among_bulk()
        figures = {"loaded_moved": moved}
        for name, (p50, p99, worst) in ("idle", idle), ("loaded", loaded):
            figures |= {f"{name}_p50": p50, f"{name}_p99": p99, f"{name}_max": worst}
        return figures | {f"connections_{n}": self.connections(n) for n in (1, 16)}


def spread(name, seconds):
    milliseconds = [second * 1000 for second in seconds]
    p99 = statistics.quantiles(milliseconds, n=100, method="inclusive")[98]
    return {f"{name}_p50": statistics.median(milliseconds), f"{name}_p99": p99}


def repeatedly(action, seconds):
    """How long each of the actions takes that are done one after the other."""
    times, end = [], time.monotonic() + seconds
    while (start := time.monotonic()) < end:
        action()
        times.append(time.monotonic() - start)
    return times


def query(name, s):
    """Asks the nameserver of resolv.conf(5) for the address of `name`, as a resolver does (RFC 1035 4.1)."""
    ident = secrets.token_bytes(2)
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    s.send(ident + b"\1\0\0\1\0\0\0\0\0\0" + labels + b"\0\0\1\0\1")
    while not s.recv(4096).startswith(ident):
        pass


def names(name):
    with open("/etc/resolv.conf") as conf:
        nameserver = next(line.split()[1] for line in conf if line.startswith("nameserver"))

    def one(_):
        with datagram_socket() as s:
            s.connect((nameserver, 53))
            return repeatedly(lambda: query(name, s), SECONDS["connections"])

    with ThreadPoolExecutor(16) as pool:
        many = sum(len(times) for times in pool.map(one, range(16))) / SECONDS["connections"]
    return spread("name", one(0)) | {"names_16": many}


def connects(name, port):
    way = Way(name, port)

    def one():
        with way.connect() as connection:
            connection.sendall(b"e" + bytes(8) + b"?")
            exactly(connection, 1)

    return spread("connect", repeatedly(one, SECONDS["connections"]))


def datagrams(address, port):
    def there_and_back():
        s.send(bytes(64))
        s.recv(100)

    def count():
        with contextlib.suppress(TimeoutError):
            while s.recv(1 << 16):
                back.append(1)

    figures = {}
    with datagram_socket() as s:
        s.connect((address, port))
        figures |= spread("datagram", repeatedly(there_and_back, SECONDS["connections"]))
        s.settimeout(1)
        for rate in RATES:
            back, sent, start = [], 0, time.monotonic()
            counting = threading.Thread(target=count)
            counting.start()
            while (elapsed := time.monotonic() - start) < SECONDS["datagrams"]:
                while sent < elapsed * rate:
                    s.send(bytes(DATAGRAM))
                    sent += 1
                time.sleep(0.0005)
            counting.join()
            figures[f"lost_{rate}"] = 100 * (1 - len(back) / sent)
    return figures


match sys.argv[1:]:
    case ["serve", port]:
        threading.Thread(target=send_back, args=(int(port),), daemon=True).start()
        serve(listen(int(port)))
    case ["small", name, address, port, *more]:
        figures = names(name) | connects(name, int(port))
        print(json.dumps(figures | (datagrams(address, int(port)) if more else {})))
    case ["alone"]:
        listener = listen(0)
        # The server is a process of its own, as in a pod.
        if (server := os.fork()) == 0:
            serve(listener)
        way = Way("127.0.0.1", listener.getsockname()[1])
        figures = way.calls()
        for what in BULKS:
            figures |= way.bulk(what)
        print(json.dumps(figures))
        os.kill(server, signal.SIGKILL)
    case [what, host, port] if what in BULKS:
        print(json.dumps(Way(host, int(port)).bulk(what)))
    case ["calls", host, port]:
        print(json.dumps(Way(host, int(port)).calls()))
