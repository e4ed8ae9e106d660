import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.net.URI;
import java.net.UnknownHostException;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.channels.UnresolvedAddressException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.concurrent.Executors;

/**
 * HTTP by Java: {@code get WORD...} prints a page in a line for each URL, and waits for each file to be there; {@code serve PORT} sends
 * back what it is given.
 */
class Web {
    public static void main(String[] args) throws Exception {
        if (args[0].equals("serve")) {
            HttpServer server = HttpServer.create(new InetSocketAddress(Integer.parseInt(args[1])), 0);
            server.createContext("/", Web::serve);
            server.setExecutor(Executors.newCachedThreadPool());
            server.start();
            return;
        }
        for (int i = 1; i < args.length; i++) {
            if (args[i].startsWith("/")) {
                while (!Files.exists(Path.of(args[i]))) Thread.sleep(20);
            } else {
                System.out.println(page(args[i]));
            }
        }
    }

    /** By a client of its own, that no connection is left over from the page before. */
    private static String page(String url) throws Exception {
        HttpRequest request = HttpRequest.newBuilder(URI.create(url)).build();
        try {
            return HttpClient.newHttpClient().send(request, BodyHandlers.ofString()).body().strip();
        } catch (IOException error) {
            for (Throwable cause = error; cause != null; cause = cause.getCause()) {
                if (cause instanceof UnresolvedAddressException || cause instanceof UnknownHostException) return "unknown";
            }
            throw error;
        }
    }

    private static void serve(HttpExchange exchange) throws IOException {
        byte[] body = exchange.getRequestBody().readAllBytes();
        if (exchange.getRequestMethod().equals("GET")) body = "Java\n".getBytes();
        exchange.sendResponseHeaders(200, body.length);
        exchange.getResponseBody().write(body);
        exchange.close();
    }
}
