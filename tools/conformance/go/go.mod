module fantail/conformance

go 1.26.0

require (
	github.com/r3labs/sse/v2 v2.10.0
	github.com/tmaxmax/go-sse v0.12.0
	golang.org/x/net v0.62.0
)

require gopkg.in/cenkalti/backoff.v1 v1.1.0 // indirect
