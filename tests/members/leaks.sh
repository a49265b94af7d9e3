#!/bin/sh
# Counts what an executor could leave behind. Knows nothing of podling but the names it was told.
#   leaks.sh PID NAME     PID: the executor; NAME: part of its directories' and cgroups' names
pid=$1 name=$2
echo "children $(cat /proc/"$pid"/task/*/children | wc -w)"
echo "descriptors $(ls /proc/"$pid"/fd | wc -l)"
echo "threads $(ls /proc/"$pid"/task | wc -l)"
echo "mounts $(grep -c "$name" /proc/self/mountinfo)"
echo "cgroups $(find /sys/fs/cgroup -type d -name "*$name*" | wc -l)"
echo "processes $(grep -ls "$name" /proc/[0-9]*/environ | wc -l)"
echo "network namespaces $(readlink /proc/[0-9]*/ns/net 2>/dev/null | sort -u | wc -l)"
echo "ipc $(ipcs -a 2>/dev/null | grep -c '^0x')"
