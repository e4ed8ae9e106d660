"""TCP connections for the tests: `serve PORT` at one end, any other verb at the other end, where the way to it begins.

A connection begins with a line: a command, and for most a number of MiB. What is sent in bulk is no block like another, and ends with
its digest; who has received it says how much that was, and whether the digest is right.
"""
import hashlib, os, pathlib, queue, resource, socket, sys, threading, time

MIB = 1 << 20
DIGEST = hashlib.sha256().digest_size
BLOCK = os.urandom(MIB)
PING = b"ping" * 8

results = queue.Queue()  # of what came after the server's own end
together = threading.Barrier(2)
poured = []  # bytes, per connection


def send(connection, mib):
    digest = hashlib.sha256()
    for i in range(mib):
        block = i.to_bytes(8, "big") + BLOCK[8:]
        digest.update(block)
        connection.sendall(block)
    connection.sendall(digest.digest())


def receive(connection, progress=[0]):
    digest, tail, size = hashlib.sha256(), b"", 0
    while piece := connection.recv(MIB):
        tail += piece
        digest.update(tail[:-DIGEST])
        tail = tail[-DIGEST:]
        size += len(piece)
        progress[0] = size
    return f"{size - DIGEST} bytes, {'intact' if tail == digest.digest() else 'broken'}"


def line(connection):
    """A byte at a time: what follows the line is not for us."""
    said = b""
    while not said.endswith(b"\n"):
        byte = connection.recv(1)
        if not byte:
            break
        said += byte
    return said.decode().split()


def exactly(connection, count):
    data = b""
    while len(data) < count:
        piece = connection.recv(count - len(data))
        if not piece:
            raise EOFError
        data += piece
    return data


def attend(connection):
    match line(connection):
        case ["get", mib]:
            send(connection, int(mib))
        case ["get-together", mib]:
            together.wait()
            send(connection, int(mib))
        case ["get-after-end", mib]:
            assert connection.recv(1) == b""
            send(connection, int(mib))
        case ["put-after-end"]:
            connection.shutdown(socket.SHUT_WR)
            results.put(receive(connection))
        case ["result"]:
            connection.sendall(results.get().encode())
        case ["echo"]:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while piece := connection.recv(MIB):
                connection.sendall(piece)
        case ["pour"]:
            own = len(poured)
            poured.append(0)
            while True:
                poured[own] += connection.send(BLOCK)
        case ["poured"]:
            connection.sendall(f"{len(poured)} {max(poured)}".encode())


def handle(connection):
    with connection:
        try:
            attend(connection)
        except OSError:
            pass  # reset by the other end


def serve(port):
    server = socket.create_server(("", port), backlog=1024)
    while True:
        connection, _ = server.accept()
        threading.Thread(target=handle, args=(connection,), daemon=True).start()


def connect(command):
    connection = socket.create_connection((host, port), 60)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.sendall(command.encode() + b"\n")
    return connection


def ask(command):
    connection = connect(command)
    answer = b""
    while piece := connection.recv(MIB):
        answer += piece
    return answer.decode()


def get_after_end(mib):
    """The server sends all of it after our own end."""
    connection = connect(f"get-after-end {mib}")
    connection.shutdown(socket.SHUT_WR)
    print(receive(connection))


def put_after_end(mib):
    """We send all of it after the server's end."""
    connection = connect("put-after-end")
    assert connection.recv(1) == b""
    send(connection, int(mib))
    connection.close()
    print(ask("result"))


def get(command, mib):
    print(receive(connect(f"{command} {mib}")))


def show(command):
    print(ask(command))


def get_and_ping(mib):
    """Pings while bulk comes down another connection. How much of that passes during a ping says how long it takes, on any machine."""
    bulk, chat, progress, outcome = connect(f"get {mib}"), connect("echo"), [0], []
    receiving = threading.Thread(target=lambda: outcome.append(receive(bulk, progress)))
    receiving.start()
    passed = []
    while receiving.is_alive():
        before = progress[0]
        chat.sendall(PING)
        assert exactly(chat, len(PING)) == PING
        passed.append(progress[0] - before)
    passed.sort()
    print(f"{outcome[0]}; {len(passed)} pings, {passed[len(passed) // 2]} bytes during the median one, {passed[len(passed) * 99 // 100]} p99")


def echoes(count, mib):
    """All that is sent comes back meanwhile, on so many connections at once."""
    outcomes = []

    def one():
        connection = connect("echo")
        receiving = threading.Thread(target=lambda: outcomes.append(receive(connection)))
        receiving.start()
        send(connection, int(mib))
        connection.shutdown(socket.SHUT_WR)
        receiving.join()

    senders = [threading.Thread(target=one) for _ in range(int(count))]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    print(f"{outcomes.count(f'{int(mib) * MIB} bytes, intact')} intact")


def stop(count):
    """Connections to what pours, of which nothing is ever read."""
    connections = [connect("pour") for _ in range(int(count))]
    print("stopped", flush=True)
    time.sleep(1e6)


def crowd(count):
    """So many connections at once, until the file /leave is there."""
    connections = [connect("echo") for _ in range(int(count))]
    for connection in connections:
        connection.sendall(PING)
    for connection in connections:
        assert exactly(connection, len(PING)) == PING
    print("all there", flush=True)
    while not pathlib.Path("/leave").exists():
        time.sleep(0.02)
    for connection in connections:
        connection.shutdown(socket.SHUT_WR)
    for connection in connections:
        assert connection.recv(1) == b""
        connection.close()
    print("all gone", flush=True)
    time.sleep(1e6)


def one_by_one(count):
    """So many short connections, a few at a time."""
    left = queue.Queue()
    for _ in range(int(count)):
        left.put(None)
    done = []

    def take():
        while True:
            try:
                left.get_nowait()
            except queue.Empty:
                return
            with connect("echo") as connection:
                connection.sendall(PING)
                assert exactly(connection, len(PING)) == PING
                connection.shutdown(socket.SHUT_WR)
                assert connection.recv(1) == b""
            done.append(None)

    takers = [threading.Thread(target=take) for _ in range(8)]
    for taker in takers:
        taker.start()
    for taker in takers:
        taker.join()
    print(len(done))


_, most = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
match sys.argv[1:]:
    case ["serve", port]:
        serve(int(port))
    case [verb, host, port, *rest]:
        port = int(port)
        globals()[verb](*rest)
