#!/usr/bin/env bash
# An event source that reconnects after a 503 does not reconnect after one refused connection.
#
# org.glassfish.jersey.media:jersey-media-sse 4.0.2, Java 17. The stream ends twice. The first time, the next request
# gets a 503 with Retry-After, and the one after it is served. The second time, no server listens for one and a half
# seconds; then the listener is back on the same port.
#
# Expected: a client that survives a 503 survives a restart, of which a refused connection is the usual sign.
# Observed: after the 503 the source reconnects, as Jakarta RESTful Web Services specifies. After the refused connection
# it calls its error handler, isOpen() becomes false, and no further request is sent: a server that is away for longer
# than its clients wait between two attempts loses all of them. Opening a new source in the error handler is safe.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
cat >pom.xml <<'XML'
<project>
  <modelVersion>4.0.0</modelVersion>
  <groupId>finding</groupId>
  <artifactId>finding</artifactId>
  <version>1</version>
  <dependencies>
    <dependency>
      <groupId>org.glassfish.jersey.media</groupId>
      <artifactId>jersey-media-sse</artifactId>
      <version>4.0.2</version>
    </dependency>
    <dependency>
      <groupId>org.glassfish.jersey.core</groupId>
      <artifactId>jersey-client</artifactId>
      <version>4.0.2</version>
    </dependency>
    <dependency>
      <groupId>org.glassfish.jersey.inject</groupId>
      <artifactId>jersey-hk2</artifactId>
      <version>4.0.2</version>
    </dependency>
  </dependencies>
</project>
XML
cat >Check.java <<'JAVA'
import jakarta.ws.rs.client.ClientBuilder;
import jakarta.ws.rs.sse.SseEventSource;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.net.SocketTimeoutException;
import java.util.List;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.atomic.AtomicBoolean;

public class Check {
  static final List<String> heard = new CopyOnWriteArrayList<>();

  public static void main(String[] arguments) throws Exception {
    var listener = listen(0);
    int port = listener.getLocalPort();
    var refused = new AtomicBoolean();
    var target = ClientBuilder.newClient().target("http://127.0.0.1:" + port + "/");
    var source = SseEventSource.target(target).build();
    source.register(event -> heard.add(event.readData()), error -> refused.set(true));
    var opened = new Thread(source::open);
    opened.start();
    answer(listener, event("first"));
    answer(listener, "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 0\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    answer(listener, event("behind a 503"));
    listener.close();
    Thread.sleep(1500);
    listener = listen(port);
    listener.setSoTimeout(5000);
    boolean comesBack = true;
    try {
      answer(listener, event("behind a refused connection"));
    } catch (SocketTimeoutException late) {
      comesBack = false;
    }
    System.out.printf("jersey-media-sse 4.0.2: received %s; after a refused connection: error reported %s, open %s, reconnects %s%n",
        heard, refused, source.isOpen(), comesBack);
    boolean asSeen = heard.equals(List.of("first", "behind a 503")) && refused.get() && !source.isOpen() && !comesBack;
    System.exit(asSeen ? 0 : 1);
  }

  static ServerSocket listen(int port) throws Exception {
    var listener = new ServerSocket();
    listener.setReuseAddress(true);
    listener.bind(new java.net.InetSocketAddress(InetAddress.getLoopbackAddress(), port));
    return listener;
  }

  static String event(String data) {
    return "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\ndata: " + data + "\n\n";
  }

  static void answer(ServerSocket listener, String text) throws Exception {
    try (var socket = listener.accept()) {
      var request = new BufferedReader(new InputStreamReader(socket.getInputStream()));
      while (!request.readLine().isEmpty()) {}
      socket.getOutputStream().write(text.getBytes());
      Thread.sleep(200);
    }
  }
}
JAVA
mvn -B -q org.apache.maven.plugins:maven-dependency-plugin:3.11.0:copy-dependencies -DoutputDirectory=lib >mvn.log 2>&1 ||
  { cat mvn.log; exit 1; }
timeout 60 java -cp 'lib/*' Check.java
