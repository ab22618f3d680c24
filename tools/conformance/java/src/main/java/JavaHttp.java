import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;
import java.net.http.WebSocket;
import java.nio.ByteBuffer;
import java.util.Objects;
import java.util.concurrent.CompletionStage;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;

/** Java's own HTTP client with defaults: it requests h2c, and sends Content-Length: 0 without a body. */
public final class JavaHttp {
  private static final String ADDRESS = System.getenv("FANTAIL_HTTP");
  private static final HttpClient CLIENT = HttpClient.newHttpClient();
  private static int passed;
  private static int failed;

  public static void main(String[] arguments) throws Exception {
    run("requests without a body", JavaHttp::requestsWithoutABody);
    run("bodies", JavaHttp::bodies);
    run("bodies that wait for 100 Continue", JavaHttp::bodiesThatWait);
    run("event streams", JavaHttp::eventStreams);
    run("polls", JavaHttp::polls);
    run("WebSockets", JavaHttp::webSockets);
    run("subprotocols", JavaHttp::subprotocols);
    System.out.printf("java_http: %d passed, %d failed%n", passed, failed);
    System.exit(failed == 0 ? 0 : 1);
  }

  private static void requestsWithoutABody() throws Exception {
    for (var path : new String[] {"/health/live", "/health/ready", "/metrics", "/", "/poll?timeout=1&channel=jh0"}) {
      equal("GET " + path, status(request(path).GET()), 200);
      equal("GET " + path + " with a length of 0", status(request(path).method("GET", BodyPublishers.noBody())), 200);
      var empty = BodyPublishers.ofString("");
      equal("GET " + path + " with an empty body", status(request(path).method("GET", empty)), 200);
    }
    equal("HEAD", status(request("/health/live").method("HEAD", BodyPublishers.noBody())), 200);
    equal("OPTIONS", status(request("/publish").method("OPTIONS", BodyPublishers.noBody())), 204);
    equal("an unknown path", status(request("/nothing").GET()), 404);
  }

  private static void bodies() throws Exception {
    equal("a text", status(request("/publish?channel=jh1").POST(BodyPublishers.ofString("hello"))), 200);
    equal("nothing", status(request("/publish?channel=jh1").POST(BodyPublishers.noBody())), 200);
    var chunked = BodyPublishers.fromPublisher(BodyPublishers.ofString("in chunks"));
    equal("in chunks", status(request("/publish?channel=jh1").POST(chunked)), 200);
    var call = BodyPublishers.ofString("{\"channel\":\"jh1\",\"limit\":10}");
    var history = send(request("/api/history").header("Content-Type", "application/json").POST(call)).body();
    that("all three were published", history.contains("\"hello\"") && history.contains("\"in chunks\"")
        && history.contains("\"offset\":3"), history);
    var tooBig = BodyPublishers.ofByteArray(new byte[2 << 20]);
    try {
      equal("too big", status(request("/publish").POST(tooBig)), 413);
    } catch (ExecutionException lost) {
      // The client was still sending when the server had answered and closed.
      that("too big", lost.getCause() instanceof IOException, lost);
    }
  }

  /** RFC 9110, 10.1.1. This client reports only the final response after the body. */
  private static void bodiesThatWait() throws Exception {
    var body = BodyPublishers.ofString("waited");
    equal("accepted", status(request("/publish?channel=jh1").expectContinue(true).POST(body)), 200);
    equal("refused", status(request("/publish?channel=nowhere:1").expectContinue(true).POST(body)), 404);
    equal("an unknown path", status(request("/nothing").expectContinue(true).POST(body)), 404);
  }

  private static void eventStreams() throws Exception {
    var response = CLIENT.send(request("/events?channel=jh2").build(), BodyHandlers.ofLines());
    equal("status", response.statusCode(), 200);
    if (response.statusCode() != 200) return;
    status(request("/publish?channel=jh2").POST(BodyPublishers.ofString("an event")));
    var data = response.body().filter(line -> line.startsWith("data: ") && !line.equals("data: {}")).findFirst();
    equal("an event", data.orElse(""), "data: an event");
  }

  private static void polls() throws Exception {
    var poll = CLIENT.sendAsync(request("/poll?channel=jh3").build(), BodyHandlers.ofString());
    Thread.sleep(200);
    status(request("/publish?channel=jh3").POST(BodyPublishers.ofString("polled")));
    that("a poll", poll.get(5, TimeUnit.SECONDS).body().contains("\"data\":\"polled\""), poll.get().body());
  }

  private static void webSockets() throws Exception {
    var listener = new Listener();
    var socket = open("/ws?channel=jh4", listener);
    equal("no subprotocol", socket.getSubprotocol(), "");
    socket.sendText("in two ", false).get();
    socket.sendText("parts", true).get();
    equal("text", listener.next(), "in two parts");
    status(request("/publish?channel=jh4").POST(BodyPublishers.ofString("posted")));
    equal("a publication", listener.next(), "posted");
    socket.sendPing(ByteBuffer.wrap("there?".getBytes())).get();
    equal("a pong", listener.next(), "pong there?");
    socket.sendClose(4001, "bye").get();
    equal("the close", listener.next(), "close 4001");
  }

  private static void subprotocols() throws Exception {
    var plain = open("/ws?channel=jh5", new Listener(), "chat", "superchat");
    equal("the first offered subprotocol", plain.getSubprotocol(), "chat");
    plain.abort();
    var listener = new Listener();
    var commands = open("/connection/websocket", listener, "centrifuge-json");
    equal("the subprotocol of the commands", commands.getSubprotocol(), "centrifuge-json");
    commands.sendText("{\"id\":1,\"connect\":{}}", true).get();
    var reply = listener.next();
    that("a reply", reply.startsWith("{\"id\":1,\"connect\":"), reply);
    commands.abort();
  }

  private static WebSocket open(String path, Listener listener, String... subprotocols) throws Exception {
    var builder = CLIENT.newWebSocketBuilder();
    if (subprotocols.length > 0) {
      builder.subprotocols(subprotocols[0], java.util.Arrays.copyOfRange(subprotocols, 1, subprotocols.length));
    }
    return builder.buildAsync(URI.create("ws://" + ADDRESS + path), listener).get(10, TimeUnit.SECONDS);
  }

  private static final class Listener implements WebSocket.Listener {
    private final LinkedBlockingQueue<String> heard = new LinkedBlockingQueue<>();
    private final StringBuilder text = new StringBuilder();

    String next() throws InterruptedException {
      return Objects.requireNonNullElse(heard.poll(10, TimeUnit.SECONDS), "nothing");
    }

    @Override
    public CompletionStage<?> onText(WebSocket socket, CharSequence part, boolean last) {
      text.append(part);
      if (last) {
        heard.add(text.toString());
        text.setLength(0);
      }
      socket.request(1);
      return null;
    }

    @Override
    public CompletionStage<?> onPong(WebSocket socket, ByteBuffer payload) {
      heard.add("pong " + java.nio.charset.StandardCharsets.UTF_8.decode(payload));
      socket.request(1);
      return null;
    }

    @Override
    public CompletionStage<?> onClose(WebSocket socket, int code, String reason) {
      heard.add("close " + code);
      return null;
    }

    @Override
    public void onError(WebSocket socket, Throwable error) {
      heard.add("error " + error);
    }
  }

  private static HttpRequest.Builder request(String path) {
    return HttpRequest.newBuilder(URI.create("http://" + ADDRESS + path));
  }

  private static int status(HttpRequest.Builder request) throws Exception {
    return send(request).statusCode();
  }

  /** The request's timeout ends at the first response head, even an interim one. */
  private static HttpResponse<String> send(HttpRequest.Builder request) throws Exception {
    return CLIENT.sendAsync(request.build(), BodyHandlers.ofString()).get(10, TimeUnit.SECONDS);
  }

  private static void equal(String what, Object actual, Object expected) {
    that(what, Objects.equals(actual, expected), "got " + actual + ", expected " + expected);
  }

  private static void that(String what, boolean holds, Object detail) {
    if (holds) {
      passed++;
    } else {
      failed++;
      System.out.println("FAIL java_http: " + what + ": " + detail);
    }
  }

  private interface Check {
    void run() throws Exception;
  }

  private static void run(String what, Check check) {
    try {
      check.run();
    } catch (Exception error) {
      that(what, false, error);
    }
  }
}
