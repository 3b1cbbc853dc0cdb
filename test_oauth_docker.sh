#!/usr/bin/env bash
# Tries the whole of it with Docker Compose: builds and starts the containers, asks the OAuth endpoints, logs in, calls the
# API, says how each step went, and takes everything away again.
#   ./test_oauth_docker.sh               against the sandbox; nobody is asked anything
#   ./test_oauth_docker.sh --keep        leaves the stack running
#   ./test_oauth_docker.sh --no-build    with the images that are there
# It reads the files in the folder where it is called:
#   ./test_oauth_docker.sh --env-file .env.oauth.local --file docker-compose.test-oauth.yml
# Exit codes: 0 all passed, 1 a step failed, 2 wrong use, 3 something that it needs is missing.
set -euo pipefail

file=docker-compose.test-oauth.yml env_file=.env.oauth keep= build=--build
while [ $# -gt 0 ]; do
  case $1 in
    --keep) keep=yes ;;
    --no-build) build=--no-build ;;
    --file | --env-file)
      [ $# -ge 2 ] || { echo "$1 wants the name of a file (see --help)" >&2; exit 2; }
      if [ "$1" = --file ]; then file=$2; else env_file=$2; fi
      shift ;;
    -h | --help) sed -n '2,9s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *) echo "I know no $1 (see --help)" >&2; exit 2 ;;
  esac
  shift
done

passed=0 failed=()
heading() { printf '\n== %s\n' "$*"; }
passed() { passed=$((passed + 1)); echo "  passed  $*"; }
failed() { failed+=("$1"); echo "  FAILED  $1${2:+: ${2:0:300}}"; }
missing() { echo "  MISSING $*" >&2; exit 3; }

# check NAME PATTERN TEXT: whether the text has the pattern
check() { if grep -qE -- "$2" <<<"$3"; then passed "$1"; else failed "$1" "$3"; fi; }

# setting NAME: its value in the env file, without the quotes around it
setting() { sed -n "s/^$1=//p" "$env_file" | tail -n 1 | sed "s/^'\(.*\)'\$/\1/; s/^\"\(.*\)\"\$/\1/"; }

heading Prerequisites
command -v docker >/dev/null || missing "docker: install Docker 20.10 or newer"
docker info >/dev/null 2>&1 || missing "the docker engine does not answer: start it, or become somebody who may use it"
passed "docker $(docker version --format '{{.Server.Version}}')"
recent='^v?(2\.(2[4-9]|[3-9][0-9])|[3-9]|[1-9][0-9])'
if docker compose version --short 2>/dev/null | grep -qE "$recent"; then compose=(docker compose)
elif docker-compose version --short 2>/dev/null | grep -qE "$recent"; then compose=(docker-compose)
else missing "Docker Compose 2.24 or newer"; fi
passed "${compose[*]} $("${compose[@]}" version --short)"
command -v curl >/dev/null || missing "curl"
for needed in "$file" "$env_file"; do
  [ -r "$needed" ] || missing "$needed: write it with ansible-playbook playbooks/export_compose.yml"
done
passed "$file and $env_file"
compose+=(-f "$file" --env-file "$env_file")
base=$(setting BASE_IMAGE)
base=${base:-$(sed -n 's/.*BASE_IMAGE:-\([^}]*\)}.*/\1/p' "$file" | head -n 1)}
if [ "$build" = --build ] && [[ $base == litellm-oauth/debian:* ]] && ! docker image inspect "$base" >/dev/null 2>&1; then
  command -v mmdebstrap >/dev/null || missing "the base image $base: install mmdebstrap, or set BASE_IMAGE=debian:trixie-slim in $env_file"
  echo "  making the base image from Debian's packages"
  "$(dirname "$0")/images/debian/build" "$base" "${base#litellm-oauth/debian:}" >/dev/null
fi
# What is taken away at the end must be nobody else's: neither of another project of this name, nor of Ansible's.
project=$(sed -n 's/^name: //p' "$file")
there=$(docker ps --all --format '{{.Names}}' | grep "^$project-" || :)
for volume in $("${compose[@]}" config --volumes); do
  if docker volume inspect "${project}_$volume" >/dev/null 2>&1; then there+=" ${project}_$volume"; fi
done
[ -z "$there" ] || missing "room for a stack called $project, since these are there:" $there "; take them away first, if their logins may go"

clean_up() {
  code=$?
  if [ -n "$keep" ]; then echo "Left running. Take it away with: ${compose[*]} down --volumes"
  else
    heading "Cleaning up"
    if "${compose[@]}" down --volumes >/dev/null 2>&1; then echo "  containers, networks and volumes are gone"
    else echo "  this did not work: ${compose[*]} down --volumes" >&2; fi
  fi
  exit $code
}
trap clean_up EXIT

heading "Building and starting (the first time takes some minutes)"
if ! said=$("${compose[@]}" up --detach "$build" --wait --wait-timeout 180 2>&1); then
  tail -n 20 <<<"$said"
  "${compose[@]}" logs --tail 15 litellm || :
  failed "the containers do not run"
  exit 1
fi
passed "$("${compose[@]}" ps --quiet | wc -l) containers run"
url=http://$("${compose[@]}" port litellm 4000)
key=$(setting LITELLM_MASTER_KEY)
oauth=$url/auth/claude/oauth

# ask [CURL ARGUMENT…] URL: the answer's body. The key goes by standard input, so that no process list shows it
ask() { curl --silent --show-error --max-time 60 --config - "$@" <<<"header = \"Authorization: Bearer $key\"" 2>&1 || :; }
chat() { ask -H 'Content-Type: application/json' -d "$1" "$url/v1/chat/completions"; }

heading "OAuth endpoints"
check "the gateway is live" alive "$(ask "$url/health/liveliness")"
check "status" '"status": ?"logged_out"' "$(ask "$oauth/status")"
started=$(ask "$oauth/start")
check "start" '"authorization_url".*"state"' "$started"
authorization_url=$(sed -n 's/.*"authorization_url": *"\([^"]*\)".*/\1/p' <<<"$started")
check "a foreign state is refused" state_mismatch \
  "$(ask -H 'Content-Type: application/json' -d '{"code": "wrong", "state": "foreign"}' "$oauth/exchange")"

heading Authentication
authorization_url=${authorization_url//\\u0026/&}
# the sandbox approves by itself and shows the code; elsewhere a person has to
page=$(curl --silent --location --max-time 30 "$authorization_url" || :)
code=$(grep -oE 'id="code"[^>]*>[^<]+' <<<"$page" | sed 's/.*> *//; s/ *$//' || :)
if [ -z "$code" ] && [ -t 0 ]; then
  printf '  Open this address, approve, and paste the code here:\n  %s\n  code: ' "$authorization_url"
  read -r -t 600 code || :
fi
check "logged in" '"authenticated": ?true' "$(ask -H 'Content-Type: application/json' -d "{\"code\": \"$code\"}" "$oauth/exchange")"
check "status after it" '"status": ?"active"' "$(ask "$oauth/status")"

heading "API calls"
check "models" '"claude-haiku-3.5"' "$(ask "$url/v1/models")"
check "chat" '"role": ?"assistant"' \
  "$(chat '{"model": "claude-haiku-3.5", "messages": [{"role": "user", "content": "Hello, how are you?"}], "max_tokens": 50}')"
check "streaming" '^data: \[DONE\]' \
  "$(chat '{"model": "claude-haiku", "messages": [{"role": "user", "content": "Count to 5"}], "stream": true}')"
check "refresh" '"result": ?"refreshed"' "$(ask -H 'Content-Type: application/json' -d '{"force": true}' "$oauth/refresh")"
check "chat with the new token" '"role": ?"assistant"' \
  "$(chat '{"model": "claude-opus-4.1", "messages": [{"role": "user", "content": "What is 2+2?"}]}')"
check "an unknown key is refused" '"error"' "$(key=sk-unknown && chat '{"model": "claude-haiku", "messages": []}')"
check "logout" '"was_logged_in": ?true' "$(ask -X POST "$oauth/logout")"

heading Summary
echo "  $passed passed, ${#failed[@]} failed"
for name in "${failed[@]}"; do echo "  failed: $name"; done
[ ${#failed[@]} -eq 0 ]
