#!/usr/bin/env bash
# A Go client takes an event that the connection cut in half for a whole one, and its id with it.
#
# github.com/r3labs/sse/v2 2.10.0; beside it github.com/tmaxmax/go-sse 0.12.0. WHATWG HTML, 9.2.6: what is at the end
# of the file without an empty line behind it is discarded. The server here sends the chunk of an event up to the middle
# of its data and closes; when a client comes back it notes the Last-Event-ID.
#
# One would bet: the half is dropped, and the client asks for it again, since HTTP said that the answer was cut.
# Seen: so does go-sse. r3labs hands the half to the caller as an event, remembers its id, comes back with that, and a
# server that replays what follows it never sends the other half. A server that writes `id` behind the data instead of
# before it loses nothing: the half is still an event, but the whole follows.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
mkdir "$folder/finding"
cat >"$folder/finding/go.mod" <<'MOD'
module finding

go 1.22

require (
	github.com/r3labs/sse/v2 v2.10.0
	github.com/tmaxmax/go-sse v0.12.0
)
MOD
cat >"$folder/finding/main.go" <<'GO'
package main

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"reflect"
	"time"

	r3labs "github.com/r3labs/sse/v2"
	gosse "github.com/tmaxmax/go-sse"
)

const whole = "id: 1\ndata: first\n\n"
const half = "id: 2\ndata: the first half"

// Serves two clients' requests, the second until the end, and tells its Last-Event-ID.
func serve() (string, chan string) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	came := make(chan string, 1)
	go func() {
		for turn := 0; ; turn++ {
			socket, err := listener.Accept()
			if err != nil {
				return
			}
			request, err := http.ReadRequest(bufio.NewReader(socket))
			if err != nil {
				continue
			}
			fmt.Fprint(socket, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
			if turn > 0 {
				came <- request.Header.Get("Last-Event-ID")
				continue
			}
			fmt.Fprintf(socket, "%x\r\n%s\r\n", len(whole), whole)
			fmt.Fprintf(socket, "%x\r\n%s", 1000, half)
			time.Sleep(200 * time.Millisecond)
			socket.Close()
		}
	}()
	return "http://" + listener.Addr().String(), came
}

func main() {
	ok := true
	expect := func(library string, heard []string, id string, as, asID any) {
		fmt.Printf("%s: events %q, then Last-Event-ID %q\n", library, heard, id)
		ok = ok && reflect.DeepEqual(heard, as) && id == asID
	}

	url, came := serve()
	var heard []string
	go r3labs.NewClient(url).SubscribeRaw(func(event *r3labs.Event) { heard = append(heard, string(event.Data)) })
	id := <-came
	expect("r3labs/sse 2.10.0", heard, id, []string{"first", "the first half"}, "2")

	url, came = serve()
	heard = nil
	request, _ := http.NewRequestWithContext(context.Background(), "GET", url, nil)
	connection := gosse.NewConnection(request)
	connection.SubscribeToAll(func(event gosse.Event) { heard = append(heard, event.Data) })
	go connection.Connect()
	id = <-came
	expect("go-sse 0.12.0", heard, id, []string{"first"}, "1")

	if !ok {
		os.Exit(1)
	}
}
GO
cd "$folder/finding"
export GOFLAGS=-modcacherw GOPATH=$folder/go
go mod tidy >"$folder/tidy.log" 2>&1 || { cat "$folder/tidy.log"; exit 1; }
timeout 300 go run .
