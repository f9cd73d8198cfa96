#!/usr/bin/env bash
# Calls a server with curl as its documentation shows it. Prints one line per call: name, tab, status and body.
# Usage: calls.sh BASE_URL [CURL_OPTION...]
set -euo pipefail
base=$1
shift
options=("$@")

call() {
    local name=$1 path=$2
    shift 2
    local answer
    answer=$(curl --silent --show-error --no-buffer --noproxy '*' --max-time 20 "${options[@]}" --write-out '\n%{http_code}' \
        -H 'content-type: application/json' "$@" "$base$path")
    printf '%s\t%s %s\n' "$name" "${answer##*$'\n'}" "$(printf '%s' "${answer%$'\n'*}" | tr '\n' ' ')"
}

ask='[{"role":"user","content":"Hello, Zürich 👋"}]'
call chat /v1/chat/completions -H 'authorization: Bearer mine' -d "{\"model\":\"gpt-4.1\",\"messages\":$ask}"
call streamed /v1/chat/completions -d "{\"model\":\"gpt-4.1\",\"stream\":true,\"stream_options\":{\"include_usage\":true},\"messages\":$ask}"
call messages /v1/messages -H 'x-api-key: mine' -H 'anthropic-version: 2023-06-01' \
    -d "{\"model\":\"claude-demo\",\"max_tokens\":50,\"messages\":$ask}"
call models /v1/models
call missing /v1/chat/completions -d "{\"model\":\"missing-one\",\"messages\":$ask}"
