# shellcheck shell=bash disable=SC2034
# What the scripts of this directory share: names, places, a few words. Sourced, never run.

HERE=$(dirname "$(realpath "${BASH_SOURCE[0]}")")
ROOT=$(realpath "$HERE/../..")
. "$HERE/versions.sh"

# Everything that is made or fetched. Exported, as the tests run the scripts with a HOME of their own.
CACHE=${TELEPRESENCE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/local-telepresence}
RUN=$CACHE/run        # of the cluster at hand: its HOME, kubeconfig and kubectl
export TELEPRESENCE_CACHE=$CACHE

# Where rustup puts cargo, which a shell that is older does not know.
CARGO_BIN=${CARGO_HOME:-$HOME/.cargo}/bin
PATH=$PATH:$CARGO_BIN

CLUSTER=telepresence-test   # not the one that deploy/kind.yaml makes for users
NODE=$CLUSTER-control-plane
CLUSTER_RANGE=198.18.0.0/15   # pods, Services and cloud: set aside for tests by RFC 2544, so never anybody's own network
CLUSTER_RANGE_6=2001:2::/48      # the same of IPv6 (RFC 5180)
POD_RANGE_6=2001:2:0:100::/56
SERVICE_RANGE_6=2001:2:0:200::/112

# Builds go to the engine at hand, never to a remote or containerised builder that would keep the result to itself.
export BUILDX_BUILDER=default

say() { printf '\033[1m==\033[0m %s\n' "$*" >&2; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

# as_root COMMAND...: for packages, the engine and one route; everything else runs as the user at hand.
as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"
  elif have sudo; then sudo "$@"
  else die "this needs root and there is no sudo: $*"; fi
}

# install_packages PACKAGE...: the caller has said what for.
install_packages() {
  have apt-get || die "please install: $* (this can only do it with apt-get)"
  say "installing the Debian packages: $*"
  as_root apt-get update -qq
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

# need_go WHAT: a Go that fetches the release which a module asks for by itself. Older ones are in some Debian releases.
need_go() {
  have go || { say "$1 is compiled with Go"; install_packages golang-go; }
  [ "$(printf 'go1.21\n%s\n' "$(go env GOVERSION)" | sort -V | head -1)" = go1.21 ] ||
    die "$1 needs Go 1.21 or later, and this is $(go env GOVERSION): https://go.dev/dl"
}

# quietly LOG COMMAND...: the log is shown only when the command fails.
quietly() {
  local log=$1; shift
  mkdir -p "$(dirname "$log")"
  "$@" >"$log" 2>&1 || { cat "$log" >&2; die "failed: $* (log: $log)"; }
}

# key PATH|WORD...: a short hash of the files at the paths and of the words. Names what was made from them.
key() {
  local arg
  for arg; do
    if [ -d "$arg" ]; then (cd "$arg" && find . -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum)
    elif [ -f "$arg" ]; then sha256sum <"$arg"
    else echo "$arg"; fi
  done | sha256sum | cut -c1-12
}

# One script at a time changes the engine, the images or the cluster. Scripts that call each other share the lock.
take_lock() {
  [ -z "${TELEPRESENCE_LOCKED:-}" ] || return 0
  mkdir -p "$CACHE"
  exec 9>"$CACHE/lock"
  flock -n 9 || { say "waiting for another run to finish with the cluster"; flock 9; }
  export TELEPRESENCE_LOCKED=1
}

# can_pull IMAGE: a registry answers for it within seconds. How long the pull itself takes is another matter.
can_pull() { timeout 10 docker manifest inspect "$1" >/dev/null 2>&1; }
