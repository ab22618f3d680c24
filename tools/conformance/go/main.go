// Clients of Go libraries, which print each event in a line for libraries.py to check.
//
//	clients r3labs|go-sse URL     listens to an event stream: its events' types and data
//	clients x-net URL             opens a WebSocket, says hello, and prints its messages
//	clients centrifuge URL TOKEN  as protobuf.py describes it
package main

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"os"

	r3labs "github.com/r3labs/sse/v2"
	gosse "github.com/tmaxmax/go-sse"
	"golang.org/x/net/websocket"
)

func main() {
	if len(os.Args) == 4 && os.Args[1] == "centrifuge" {
		fail(fmt.Sprint(centrifugeProtobuf(os.Args[2], os.Args[3])))
	}
	if len(os.Args) != 3 {
		fail("clients LIBRARY URL")
	}
	var err error
	switch address := os.Args[2]; os.Args[1] {
	case "r3labs":
		err = r3labs.NewClient(address).SubscribeRaw(func(event *r3labs.Event) {
			// It reports the incomplete last block of a killed server's stream as an event.
			if len(event.Data) > 0 {
				heard(string(event.Event), string(event.Data))
			}
		})
	case "go-sse":
		err = goSSE(address)
	case "x-net":
		err = xNet(address)
	default:
		fail("no library " + os.Args[1])
	}
	// Both stream clients return only when they give up.
	fail(fmt.Sprint("ended: ", err))
}

func goSSE(address string) error {
	request, err := http.NewRequestWithContext(context.Background(), http.MethodGet, address, nil)
	if err != nil {
		return err
	}
	connection := gosse.NewConnection(request)
	connection.SubscribeToAll(func(event gosse.Event) { heard(event.Type, event.Data) })
	return connection.Connect()
}

// Its Dial requires an Origin, and sends it with the trailing slash of its documentation.
func xNet(address string) error {
	server, err := url.Parse(address)
	if err != nil {
		return err
	}
	socket, err := websocket.Dial(address, "", "http://"+server.Host+"/")
	if err != nil {
		return err
	}
	if err := websocket.Message.Send(socket, "hello"); err != nil {
		return err
	}
	for {
		var message string
		if err := websocket.Message.Receive(socket, &message); err != nil {
			return err
		}
		heard("message", message)
	}
}

func heard(kind, data string) {
	if kind == "" {
		kind = "message"
	}
	fmt.Println(kind, data)
}

func fail(words string) {
	fmt.Println("error", words)
	os.Exit(1)
}
