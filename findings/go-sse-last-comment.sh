#!/usr/bin/env bash
# A Go client's Connect returns nil and does not reconnect if the last line of a stream was a comment.
#
# github.com/tmaxmax/go-sse 0.12.0, whose documentation says that Connect returns only when the context is done or the
# attempts are exhausted. The server ends its first response normally, each time after a different last line, and sends
# a second event to a client that reconnects.
#
# Expected: the client reconnects after every last line, because comments are to be ignored.
# Observed: it reconnects after an event, after a comment with an empty line, and after an incomplete event. After a
# comment with one line end, after an additional empty line, and after an unknown field, Connect returns nil at once:
# no error, no OnRetry, the context still active. A keepalive may be such a comment, and then a server that shuts down
# normally loses the clients whose last line was a keepalive. Calling Connect in a loop is safe.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
mkdir "$folder/finding"
cat >"$folder/finding/go.mod" <<'MOD'
module finding

go 1.22

require github.com/tmaxmax/go-sse v0.12.0
MOD
cat >"$folder/finding/main.go" <<'GO'
package main

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"sync/atomic"
	"time"

	"github.com/tmaxmax/go-sse"
)

// Returns whether a client reconnects after a stream with this end, and the result of its Connect.
func comesBack(tail string) (bool, error) {
	var requests atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(answer http.ResponseWriter, request *http.Request) {
		answer.Header().Set("Content-Type", "text/event-stream")
		if requests.Add(1) == 1 {
			fmt.Fprint(answer, "data: first\n\n", tail)
			return
		}
		fmt.Fprint(answer, "data: second\n\n")
		answer.(http.Flusher).Flush()
		<-request.Context().Done()
	}))
	defer server.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	request, _ := http.NewRequestWithContext(ctx, http.MethodGet, server.URL, nil)
	client := sse.Client{Backoff: sse.Backoff{InitialInterval: 50 * time.Millisecond}}
	connection := client.NewConnection(request)
	connection.SubscribeToAll(func(event sse.Event) {
		if event.Data == "second" {
			cancel()
		}
	})
	err := connection.Connect()
	return requests.Load() > 1, err
}

func main() {
	ok := true
	for _, seen := range []struct {
		tail  string
		comes bool
	}{
		{"", true},
		{": heartbeat\n\n", true},
		{"data: half", true},
		{": heartbeat\n", false},
		{"\n", false},
		{"unknown: 1\n", false},
	} {
		comes, err := comesBack(seen.tail)
		fmt.Printf("go-sse 0.12.0: after %q: reconnects %t, Connect returned %v\n", seen.tail, comes, err)
		ok = ok && comes == seen.comes && comes == (err != nil)
	}
	if !ok {
		os.Exit(1)
	}
}
GO
cd "$folder/finding"
export GOFLAGS=-modcacherw GOPATH=$folder/go
go mod tidy >"$folder/tidy.log" 2>&1 || { cat "$folder/tidy.log"; exit 1; }
timeout 300 go run .
