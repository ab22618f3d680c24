import io.github.centrifugal.centrifuge.Client;
import io.github.centrifugal.centrifuge.ConnectedEvent;
import io.github.centrifugal.centrifuge.ErrorEvent;
import io.github.centrifugal.centrifuge.EventListener;
import io.github.centrifugal.centrifuge.Options;
import io.github.centrifugal.centrifuge.PublicationEvent;
import io.github.centrifugal.centrifuge.SubscribedEvent;
import io.github.centrifugal.centrifuge.Subscription;
import io.github.centrifugal.centrifuge.SubscriptionErrorEvent;
import io.github.centrifugal.centrifuge.SubscriptionEventListener;
import java.nio.charset.StandardCharsets;
import java.util.Base64;
import java.util.concurrent.atomic.AtomicBoolean;

/** centrifuge-java, which speaks Protobuf only, for protobuf.py. */
public final class Protobuf {
  public static void main(String[] arguments) throws Exception {
    var options = new Options();
    options.setToken(arguments[1]);
    options.setMinReconnectDelay(50);
    options.setMaxReconnectDelay(200);
    var client = new Client(arguments[0], options, new Connection());
    client.newSubscription("news", new News()).subscribe();
    client.connect();
    Thread.currentThread().join();
  }

  private static final class Connection extends EventListener {
    @Override
    public void onConnected(Client client, ConnectedEvent event) {
      System.out.println("connected");
    }

    /** While the server restarts, connections are refused. */
    @Override
    public void onError(Client client, ErrorEvent event) {
      for (var cause = event.getError(); cause != null; cause = cause.getCause()) {
        if (cause instanceof java.io.IOException) {
          return;
        }
      }
      System.out.println("error " + event.getError());
    }
  }

  private static final class News extends SubscriptionEventListener {
    private final AtomicBoolean isSubscribed = new AtomicBoolean();

    @Override
    public void onSubscribed(Subscription subscription, SubscribedEvent event) {
      System.out.printf("subscribed %s %s%n", event.wasRecovering(), event.getRecovered());
      if (isSubscribed.compareAndSet(false, true)) {
        var data = "{\"from\":\"java\"}".getBytes(StandardCharsets.UTF_8);
        subscription.publish(data, (error, result) -> {
          if (error != null) {
            System.out.println("error " + error);
          }
        });
      }
    }

    @Override
    public void onPublication(Subscription subscription, PublicationEvent event) {
      System.out.println("message " + Base64.getEncoder().encodeToString(event.getData()));
    }

    @Override
    public void onError(Subscription subscription, SubscriptionErrorEvent event) {
      System.out.println("error " + event.getError());
    }
  }
}
