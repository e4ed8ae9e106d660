"""Connections on which both ends speak at any time: `serve WEBSOCKET_PORT GRPC_PORT`, and `websocket HOST PORT` or `grpc HOST PORT` at
the other end, which prints a line for each thing that it tries.
"""
import asyncio, concurrent.futures, os, sys
import grpc, websockets

MIB = 1 << 20
MESSAGES = 1000
LONG = 60  # seconds, for what would hang otherwise


async def echo(socket):
    async for message in socket:
        await socket.send(message)


async def serve_websocket(port):
    async with websockets.serve(echo, None, port, max_size=None):
        await asyncio.Future()


def serve_grpc(port):
    """Without generated code: messages are bytes."""
    methods = {
        "Once": grpc.unary_unary_rpc_method_handler(lambda request, _: request),
        "Chat": grpc.stream_stream_rpc_method_handler(lambda requests, _: (request for request in requests)),
    }
    workers = concurrent.futures.ThreadPoolExecutor()
    server = grpc.server(workers, options=[("grpc.max_receive_message_length", -1)])
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("Echo", methods)])
    server.add_insecure_port(f"0.0.0.0:{port}")
    server.start()
    return server


async def call_websocket(host, port):
    async with websockets.connect(f"ws://{host}:{port}/", max_size=None, open_timeout=LONG) as socket:
        await socket.send("text")
        print("text:", await socket.recv())
        sent = os.urandom(4 * MIB)
        await socket.send(sent)
        print("4 MiB:", await socket.recv() == sent)
        await (await socket.ping())
        print("a ping is answered")
        sent = [f"{n}" for n in range(MESSAGES)]

        async def send():
            for message in sent:
                await socket.send(message)

        sending = asyncio.create_task(send())
        print("a thousand, both ways at once:", [await socket.recv() for _ in sent] == sent)
        await sending
    print("closed:", socket.close_code)


def call_grpc(host, port):
    with grpc.insecure_channel(f"{host}:{port}", options=[("grpc.max_receive_message_length", -1)]) as channel:
        sent = os.urandom(4 * MIB)
        print("4 MiB:", channel.unary_unary("/Echo/Once")(sent, timeout=LONG) == sent)
        sent = [b"%d" % n for n in range(MESSAGES)]
        print("a thousand, both ways at once:", list(channel.stream_stream("/Echo/Chat")(iter(sent), timeout=LONG)) == sent)
        try:
            channel.unary_unary("/Echo/Nothing")(b"", timeout=LONG)
        except grpc.RpcError as error:
            print("an unknown method:", error.code().name)


match sys.argv[1:]:
    case ["serve", websocket_port, grpc_port]:
        server = serve_grpc(int(grpc_port))
        asyncio.run(serve_websocket(int(websocket_port)))
    case ["websocket", host, port]:
        asyncio.run(call_websocket(host, int(port)))
    case ["grpc", host, port]:
        call_grpc(host, int(port))
