/* HTTP by musl, linked statically: `get URL...` prints a page in a line each, `serve PORT` answers with its name. */
#include <err.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static char page[1 << 16];

/* What comes until the end, or until the empty line after the header. */
static void receive(int fd, const char *until)
{
	size_t size = 0;
	ssize_t count;
	do {
		count = read(fd, page + size, sizeof page - 1 - size);
		if (count < 0)
			err(1, "read");
		page[size += count] = 0;
	} while (count > 0 && !(until && strstr(page, until)));
}

static int connected(const struct addrinfo *address)
{
	for (; address; address = address->ai_next) {
		int fd = socket(address->ai_family, address->ai_socktype, address->ai_protocol);
		if (fd >= 0 && connect(fd, address->ai_addr, address->ai_addrlen) == 0)
			return fd;
		if (fd >= 0)
			close(fd);
	}
	return -1;
}

static void get(const char *url)
{
	char host[256], port[6] = "80";
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *addresses;
	if (sscanf(url, "http://%255[^:/]:%5[0-9]", host, port) < 1)
		errx(2, "no URL: %s", url);
	int error = getaddrinfo(host, port, &hints, &addresses);
	if (error) {
		puts(error == EAI_NONAME ? "unknown" : gai_strerror(error));
		return;
	}
	int fd = connected(addresses);
	if (fd < 0)
		err(1, "%s", url);
	freeaddrinfo(addresses);
	dprintf(fd, "GET / HTTP/1.0\r\nHost: %s\r\n\r\n", host);
	receive(fd, NULL);
	close(fd);
	const char *body = strstr(page, "\r\n\r\n");
	if (!body)
		errx(1, "%s: no answer", url);
	printf("%.*s\n", (int)strcspn(body + 4, "\n"), body + 4);
}

static void serve(const char *port)
{
	struct sockaddr_in any = {.sin_family = AF_INET, .sin_port = htons(atoi(port))};
	int on = 1, server = socket(AF_INET, SOCK_STREAM, 0);
	setsockopt(server, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
	if (bind(server, (struct sockaddr *)&any, sizeof any) || listen(server, 128))
		err(1, "port %s", port);
	for (;;) {
		int fd = accept(server, NULL, NULL);
		if (fd < 0)
			err(1, "accept");
		receive(fd, "\r\n\r\n");
		dprintf(fd, "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nmusl\n");
		close(fd);
	}
}

int main(int argc, char **argv)
{
	if (argc > 2 && !strcmp(argv[1], "serve"))
		serve(argv[2]);
	for (int i = 2; i < argc; i++)
		get(argv[i]);
	return 0;
}
