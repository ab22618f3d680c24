package main

import (
	"context"
	"encoding/base64"
	"fmt"
	"time"

	"github.com/centrifugal/centrifuge-go"
)

// centrifuge-go in Protobuf, for protobuf.py.
func centrifugeProtobuf(address, token string) error {
	client := centrifuge.NewProtobufClient(address, centrifuge.Config{
		Token: token, MinReconnectDelay: 50 * time.Millisecond, MaxReconnectDelay: 200 * time.Millisecond,
	})
	client.OnConnected(func(centrifuge.ConnectedEvent) { fmt.Println("connected") })
	client.OnError(func(event centrifuge.ErrorEvent) {
		// While the server restarts, connections are refused.
		if _, isTransport := event.Error.(centrifuge.TransportError); !isTransport {
			fmt.Println("error", event.Error)
		}
	})
	news, err := client.NewSubscription("news")
	if err != nil {
		return err
	}
	subscribed := make(chan struct{}, 100)
	news.OnSubscribed(func(event centrifuge.SubscribedEvent) {
		fmt.Println("subscribed", event.WasRecovering, event.Recovered)
		subscribed <- struct{}{}
	})
	news.OnPublication(func(event centrifuge.PublicationEvent) {
		fmt.Println("message", base64.StdEncoding.EncodeToString(event.Data))
	})
	news.OnError(func(event centrifuge.SubscriptionErrorEvent) { fmt.Println("error", event.Error) })
	if err := news.Subscribe(); err != nil {
		return err
	}
	if err := client.Connect(); err != nil {
		return err
	}
	<-subscribed
	if _, err := news.Publish(context.Background(), []byte(`{"from":"go"}`)); err != nil {
		return err
	}
	select {}
}
