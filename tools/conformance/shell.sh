#!/usr/bin/env bash
# Uses every endpoint with nc and curl.
set -uo pipefail
http=http://$FANTAIL_HTTP
tcp_host=${FANTAIL_TCP%:*} tcp_port=${FANTAIL_TCP##*:}
echo_host=${FANTAIL_ECHO_TCP%:*} echo_port=${FANTAIL_ECHO_TCP##*:}
passed=0 failed=0
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

check() {
  local what=$1 actual=$2 pattern=$3
  if [[ $actual =~ $pattern ]]; then
    ((passed += 1))
  else
    ((failed += 1))
    printf 'FAIL shell: %s: got %q, expected %q\n' "$what" "$actual" "$pattern"
  fi
}

# Versions of nc differ in when they exit; a time limit ends all of them.
check "nc echoes" "$(printf 'hello\n' | timeout 2 nc "$echo_host" "$echo_port")" '^hello$'

status() { curl -sS -o "$scratch/body" -w '%{http_code}' "$@"; }
check "health" "$(status "$http/health/live")" '^200$'
check "health by HEAD" "$(status -I "$http/health/live")" '^200$'
check "health by HTTP/1.0" "$(status -0 "$http/health/live")" '^200$'
check "not found" "$(status "$http/nothing")" '^404$'
check "two requests on one connection" \
  "$(curl -sS -o /dev/null -o /dev/null -w '%{http_code} %{num_connects} ' "$http/health/live" "$http/health/live")" \
  '^200 1 200 0 $'

# A subscriber with nc, a publisher with curl.
{ printf '{"id":1,"connect":{}}\n{"id":2,"subscribe":{"channel":"shell"}}\n'; sleep 2; } |
  timeout 4 nc "$tcp_host" "$tcp_port" >"$scratch/subscriber" &
subscriber=$!
for _ in {1..50}; do grep -q '"subscribe"' "$scratch/subscriber" && break; sleep 0.05; done
check "publish JSON" "$(status --data '{"from":"curl"}' "$http/publish?channel=shell")" '^200$'
check "publish text" "$(status -H 'Content-Type: text/plain' --data-binary 'hello' "$http/publish?channel=shell")" '^200$'
check "publish chunked" \
  "$(status -H 'Transfer-Encoding: chunked' --data '{"chunked":true}' "$http/publish?channel=shell")" '^200$'
check "publish a body that waits for 100 Continue" \
  "$(status -H 'Expect: 100-continue' --data '{"continued":true}' "$http/publish?channel=shell")" '^200$'
wait "$subscriber"
heard=$(cat "$scratch/subscriber")
check "nc is answered" "$heard" '"id":1,"connect":\{'
check "nc receives JSON" "$heard" '"channel":"shell".*"data":\{"from":"curl"\}'
check "nc receives text" "$heard" '"hello"'
check "nc receives the chunked body" "$heard" '\{"chunked":true\}'
check "nc receives the body after 100 Continue" "$heard" '\{"continued":true\}'

# A publisher with nc, a subscriber with curl: after the handshake, curl prints the frames.
timeout 2 curl -sSN --http1.1 -H 'Connection: Upgrade' -H 'Upgrade: websocket' -H 'Sec-WebSocket-Version: 13' \
  -H 'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==' "$http/ws?channel=shell2" >"$scratch/frames" 2>/dev/null &
subscriber=$!
sleep 0.5
{ printf '{"id":1,"connect":{}}\n{"id":2,"publish":{"channel":"shell2","data":"from nc"}}\n'; sleep 0.5; } |
  timeout 2 nc "$tcp_host" "$tcp_port" >"$scratch/publisher"
wait "$subscriber"
check "nc publishes" "$(cat "$scratch/publisher")" '"id":2,"publish":\{'
check "curl receives it" "$(tr -d '\000' <"$scratch/frames")" 'from nc'

# Event streams and polls, with curl alone.
timeout 2 curl -sSN "$http/events?channel=shell3" >"$scratch/events" &
subscriber=$!
timeout 5 curl -sS "$http/poll?channel=shell3" >"$scratch/poll" &
poll=$!
sleep 0.5
check "publish" "$(status --data 'one' "$http/publish?channel=shell3")" '^200$'
check "publish with an event type" "$(status --data 'two' "$http/publish?channel=shell3&event=greeting")" '^200$'
wait "$subscriber" "$poll"
check "curl receives events" "$(cat "$scratch/events")" $'\nid: 1:([0-9a-f]{8})\ndata: one\n\nid: 2:'
check "curl receives an event type" "$(cat "$scratch/events")" $'event: greeting\ndata: two'
check "curl is answered" "$(cat "$scratch/poll")" '"data":"one"\}$'
first=$(sed -n 's/^id: \(1:.*\)/\1/p' "$scratch/events")
resumed=$(timeout 1 curl -sSN -H "Last-Event-ID: $first" "$http/events?channel=shell3")
check "curl resumes after the first" "$resumed" $'^retry: [2-5][0-9]+\nid: 1:[0-9a-f]+\nevent: position\ndata: \{\}\n\nid: 2:[0-9a-f]+\nevent: greeting\ndata: two$'
check "curl polls the missed publication" "$(curl -sS "$http/poll?channel=shell3&since=$first")" '"data":"two","event":"greeting"\}\],"position":"2:'
check "an invalid position" "$(curl -sS "$http/poll?since=x&timeout=0")" '"recovered":false'

echo "shell: $passed passed, $failed failed"
((failed == 0))
