#!/bin/sh
# vllmwall, as the image's programs are started: where a node's cgroups have their names.
#
# A container has a cgroup namespace of its own, in which the node's cgroups have no names, so no
# guard could be put on them. Kubernetes has no field for it; pid 1, the node's under hostPID,
# is in the right one. Where that may not be entered (no CAP_SYS_ADMIN), what needs no cgroups
# works all the same, and `vllmwall doctor` says what does not.
set -eu
ours=/opt/vllmwall/bin/vllmwall
if nsenter --target 1 --cgroup true 2>/dev/null; then
    exec nsenter --target 1 --cgroup -- "$ours" "$@"
fi
exec "$ours" "$@"
