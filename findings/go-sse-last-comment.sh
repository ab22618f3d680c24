#!/usr/bin/env bash
# A Go client's Connect returns nil, and never comes back, if the last line of a stream was a comment.
#
# github.com/tmaxmax/go-sse 0.12.0, which says of Connect that it returns when the context is done or the attempts are
# used up, and never otherwise. The server ends its first answer in the regular way, each time behind another last line;
# what asks again is given a second event.
#
# One would bet: the client comes back, whatever was last; a comment is there to be ignored.
# Seen: it comes back behind an event, behind a comment with an empty line, and behind half an event. Behind a comment
# with one line end, behind one empty line more than an event needs, and behind a field that it does not know, Connect
# returns nil at once: no error, no OnRetry, the context alive. A heartbeat may be such a comment, and then a server
# that stops in the regular way loses the clients whose last line was one. To call Connect in a loop is safe.
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

// Whether a client comes back to a stream that ended with this, and what its Connect returned.
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
		fmt.Printf("go-sse 0.12.0: behind %q: comes back %t, Connect returned %v\n", seen.tail, comes, err)
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
