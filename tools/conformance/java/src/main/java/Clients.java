import static java.nio.charset.StandardCharsets.UTF_8;

import io.netty.bootstrap.Bootstrap;
import io.netty.channel.ChannelHandlerContext;
import io.netty.channel.ChannelInitializer;
import io.netty.channel.MultiThreadIoEventLoopGroup;
import io.netty.channel.SimpleChannelInboundHandler;
import io.netty.channel.nio.NioIoHandler;
import io.netty.channel.socket.SocketChannel;
import io.netty.channel.socket.nio.NioSocketChannel;
import io.netty.handler.codec.http.HttpClientCodec;
import io.netty.handler.codec.http.HttpObjectAggregator;
import io.netty.handler.codec.http.websocketx.CloseWebSocketFrame;
import io.netty.handler.codec.http.websocketx.TextWebSocketFrame;
import io.netty.handler.codec.http.websocketx.WebSocketClientProtocolConfig;
import io.netty.handler.codec.http.websocketx.WebSocketClientProtocolHandler;
import io.netty.handler.codec.http.websocketx.WebSocketClientProtocolHandler.ClientHandshakeStateEvent;
import io.netty.handler.codec.http.websocketx.WebSocketFrame;
import io.vertx.core.Vertx;
import io.vertx.core.http.WebSocketConnectOptions;
import jakarta.ws.rs.client.ClientBuilder;
import jakarta.ws.rs.sse.SseEventSource;
import java.net.URI;
import java.time.Duration;
import java.util.concurrent.atomic.AtomicReference;
import java.util.logging.Level;
import java.util.logging.Logger;
import org.springframework.core.ParameterizedTypeReference;
import org.springframework.http.codec.ServerSentEvent;
import org.springframework.web.reactive.function.client.WebClient;
import org.springframework.web.reactive.function.client.WebClientRequestException;
import org.springframework.web.reactive.function.client.WebClientResponseException;
import org.springframework.web.reactive.socket.client.ReactorNettyWebSocketClient;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;
import reactor.util.retry.Retry;

/**
 * Clients of Java libraries. What they hear is printed, a line each; libraries.py says what it should be.
 *
 * <p>{@code Clients jersey|spring URL} listens to an event stream: its events' types and data. {@code Clients
 * netty|vertx|spring-socket URL} opens a WebSocket, says hello, and prints its messages and the code that it is closed
 * with.
 */
public final class Clients {
  public static void main(String[] arguments) throws Exception {
    // Lost connections are expected.
    Logger.getLogger("").setLevel(Level.OFF);
    var url = arguments[1];
    switch (arguments[0]) {
      case "jersey" -> jersey(url);
      case "spring" -> spring(url);
      case "netty" -> netty(URI.create(url));
      case "vertx" -> vertx(url);
      case "spring-socket" -> springSocket(URI.create(url));
      default -> print("error", "no library " + arguments[0]);
    }
    Thread.currentThread().join();
  }

  private static void jersey(String url) {
    var source = SseEventSource.target(ClientBuilder.newClient().target(url)).build();
    source.register(
        event -> print(event.getName() == null ? "message" : event.getName(), event.readData()),
        error -> print("error", error.toString()),
        () -> print("error", "ended"));
    source.open();
  }

  /** With Spring the caller reconnects and sends the last event id. */
  private static void spring(String url) {
    var lastId = new AtomicReference<String>();
    var type = new ParameterizedTypeReference<ServerSentEvent<String>>() {};
    Flux.defer(() -> WebClient.create().get().uri(url)
            .headers(headers -> { if (lastId.get() != null) headers.set("Last-Event-ID", lastId.get()); })
            .retrieve()
            .bodyToFlux(type))
        .doOnNext(event -> { if (event.id() != null) lastId.set(event.id()); })
        // The result must not be null: each event needs data.
        .map(event -> new String[] {event.event() == null ? "message" : event.event(), event.data()})
        .doOnNext(event -> { if (event[1] == null) throw new NullPointerException("an event without data"); })
        .repeatWhen(ends -> ends.delayElements(PAUSE))
        .retryWhen(Retry.fixedDelay(Long.MAX_VALUE, PAUSE).filter(Clients::isOfTheNetwork))
        .subscribe(event -> print(event[0], event[1]), error -> print("error", error.toString()));
  }

  private static boolean isOfTheNetwork(Throwable error) {
    return error instanceof WebClientRequestException
        || error instanceof WebClientResponseException
        || error instanceof java.io.IOException;
  }

  private static void netty(URI uri) {
    var config = WebSocketClientProtocolConfig.newBuilder().webSocketUri(uri).handleCloseFrames(false).build();
    new Bootstrap()
        .group(new MultiThreadIoEventLoopGroup(1, NioIoHandler.newFactory()))
        .channel(NioSocketChannel.class)
        .handler(new ChannelInitializer<SocketChannel>() {
          @Override
          protected void initChannel(SocketChannel channel) {
            channel.pipeline().addLast(
                new HttpClientCodec(),
                new HttpObjectAggregator(65536),
                new WebSocketClientProtocolHandler(config),
                new NettySocket());
          }
        })
        .connect(uri.getHost(), uri.getPort());
  }

  private static final class NettySocket extends SimpleChannelInboundHandler<WebSocketFrame> {
    @Override
    public void userEventTriggered(ChannelHandlerContext context, Object event) {
      if (event == ClientHandshakeStateEvent.HANDSHAKE_COMPLETE) {
        context.writeAndFlush(new TextWebSocketFrame("hello"));
      }
    }

    @Override
    protected void channelRead0(ChannelHandlerContext context, WebSocketFrame frame) {
      if (frame instanceof TextWebSocketFrame text) {
        print("message", text.text());
      } else if (frame instanceof CloseWebSocketFrame close) {
        print("close", String.valueOf(close.statusCode()));
        context.writeAndFlush(close.retain());
      }
    }

    @Override
    public void exceptionCaught(ChannelHandlerContext context, Throwable error) {
      print("error", error.toString());
      context.close();
    }
  }

  private static void vertx(String url) {
    var client = Vertx.vertx().createWebSocketClient();
    // Referenced, or it would be garbage-collected with its sockets.
    HELD.set(client);
    client.connect(new WebSocketConnectOptions().setAbsoluteURI(url))
        .onFailure(error -> print("error", error.toString()))
        .onSuccess(socket -> {
          socket.textMessageHandler(text -> print("message", text));
          socket.closeHandler(end -> print("close", String.valueOf(socket.closeStatusCode())));
          socket.writeTextMessage("hello");
        });
  }

  private static void springSocket(URI uri) {
    new ReactorNettyWebSocketClient()
        .execute(uri, session -> session.send(Mono.just(session.textMessage("hello")))
            .thenMany(session.receive())
            .doOnNext(message -> print("message", message.getPayload().toString(UTF_8)))
            .then(session.closeStatus())
            .doOnNext(status -> print("close", String.valueOf(status.getCode())))
            .then())
        .subscribe(done -> {}, error -> print("error", error.toString()));
  }

  private static void print(String kind, String text) {
    System.out.println(kind + " " + text);
  }

  private static final Duration PAUSE = Duration.ofSeconds(1);
  private static final AtomicReference<Object> HELD = new AtomicReference<>();
}
