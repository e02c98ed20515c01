#!/bin/sh
# The image's entry point: runs vllmwall in the node's cgroup namespace.
#
# In a container's own cgroup namespace the node's cgroups have no names, so they cannot be
# guarded. Kubernetes has no field for that. With hostPID, pid 1 is in the node's cgroup namespace.
# Without CAP_SYS_ADMIN it cannot be entered. Then only guards are missing, and
# `vllmwall doctor` reports it.
set -eu
ours=/opt/vllmwall/bin/vllmwall
if nsenter --target 1 --cgroup true 2>/dev/null; then
    exec nsenter --target 1 --cgroup -- "$ours" "$@"
fi
exec "$ours" "$@"
