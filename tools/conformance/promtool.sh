#!/usr/bin/env bash
# Checks the metrics page with Prometheus's linter, after some traffic.
set -uo pipefail
http=http://$FANTAIL_HTTP
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
for _ in {1..3}; do curl -sS -o /dev/null -d hello "$http/publish?channel=promtool" || exit 1; done
curl -sS -o /dev/null "$http/ws"
curl -sS -o "$scratch/page" "$http/metrics" || exit 1
if ! "$PROMTOOL" check metrics <"$scratch/page" >"$scratch/output" 2>&1 || [[ -s $scratch/output ]]; then
  sed 's/^/FAIL promtool: /' "$scratch/output"
  exit 1
fi
metrics=$(grep -c '^# TYPE' "$scratch/page")
((metrics > 30)) || { echo "FAIL promtool: only $metrics metrics"; exit 1; }
echo "promtool: $metrics metrics, no complaints"
