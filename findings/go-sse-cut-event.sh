#!/usr/bin/env bash
# A Go client delivers an incomplete event at the end of a cut connection as a complete one, and remembers its id.
#
# github.com/r3labs/sse/v2 2.10.0, compared with github.com/tmaxmax/go-sse 0.12.0. WHATWG HTML, 9.2.6: data at the end
# of the stream without a following empty line is discarded. The server here sends an event up to the middle of its data
# within a chunk and closes the connection; on a reconnect it records the Last-Event-ID.
#
# Expected: the incomplete event is discarded and the client requests it again, because HTTP reports the truncation.
# Observed: go-sse does so. r3labs/sse passes the incomplete event to the caller, remembers its id and reconnects with
# it, so a server that replays the events after that id never sends the rest. A server that writes `id` after the data
# loses nothing: the incomplete event is still delivered, but the complete one follows.
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

// Serves two requests, the second one without a cut, and reports its Last-Event-ID.
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
