# shellcheck shell=bash disable=SC2034
# What is fetched by name. Our own node image's versions are in node-image/*/go.mod. Kubernetes stays at 1.34, the last that takes
# cgroup v1; the official node image is the one of that kind release.
KIND_VERSION=v0.33.0
NODE_IMAGE=kindest/node:v1.34.11@sha256:44e222ee2132dab25ff87301682f89eb82c7880ea3a1bf543bfe9708fd08d67d
RUSTUP_VERSION=1.29.1
