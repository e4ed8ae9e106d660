"""HTTP by Python: `requests URL...` one after the other, `asyncio URL...` all at once. A page in a line each."""
import asyncio, socket, sys, urllib.parse
import requests


def by_requests(url):
    try:
        return requests.get(url).text.strip()
    except requests.ConnectionError as error:
        return "unknown" if f"[Errno {socket.EAI_NONAME}]" in str(error) else repr(error)


async def by_asyncio(url):
    parts = urllib.parse.urlsplit(url)
    try:
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port or 80)
    except socket.gaierror as error:
        return "unknown" if error.errno == socket.EAI_NONAME else repr(error)
    writer.write(f"GET / HTTP/1.0\r\nHost: {parts.hostname}\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    return answer.partition(b"\r\n\r\n")[2].decode().strip()


async def all_at_once(urls):
    return await asyncio.gather(*map(by_asyncio, urls))


match sys.argv[1:]:
    case ["requests", *urls]:
        pages = map(by_requests, urls)
    case ["asyncio", *urls]:
        pages = asyncio.run(all_at_once(urls))
for page in pages:
    print(page)
