#!/usr/bin/env bash
# kubeconfig.sh [NAMESPACE] [DURATION]: prints a kubeconfig that works anywhere, with a short-lived token instead of a
# credential plugin or files of this machine. It may do in NAMESPACE (default: the context's) what rbac.yaml beside this
# script says, and no more, for DURATION (default 8h).
#     deploy/kubeconfig.sh > kubeconfig
#     docker run … -v $PWD/kubeconfig:/opt/.kube/config:ro … local-telepresence …
set -euo pipefail
here=$(dirname "$(realpath "$0")")
namespace=${1:-$(kubectl config view --minify -o 'jsonpath={..namespace}')}
namespace=${namespace:-default}
account=local-telepresence

kubectl -n "$namespace" create serviceaccount "$account" --dry-run=client -o yaml | kubectl apply -f - >&2
kubectl -n "$namespace" apply -f "$here/rbac.yaml" >&2
token=$(kubectl -n "$namespace" create token "$account" --duration "${2:-8h}")

# The cluster as this context has it, certificates embedded; everything else is left behind. The context keeps its name, by which the
# client knows kind's and minikube's.
context=$(kubectl config current-context | sed 's/[\\"]/\\&/g')
cluster=$(kubectl config view --minify --flatten --raw -o 'jsonpath={.clusters[0].cluster}')
cat <<JSON
{"apiVersion": "v1", "kind": "Config", "current-context": "$context",
 "clusters": [{"name": "$context", "cluster": $cluster}],
 "users": [{"name": "$account", "user": {"token": "$token"}}],
 "contexts": [{"name": "$context", "context": {"cluster": "$context", "user": "$account", "namespace": "$namespace"}}]}
JSON
