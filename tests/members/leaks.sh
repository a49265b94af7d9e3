#!/bin/sh
# Counts what an executor could leave behind. Knows nothing of podling but the names it was told.
#   leaks.sh PID NAME     PID: the executor, or - when it is dead; NAME: part of its directories' and cgroups' names
pid=$1 name=$2
if [ "$pid" != - ]; then
	echo "children $(cat /proc/"$pid"/task/*/children | wc -w)"
	echo "descriptors $(ls /proc/"$pid"/fd | wc -l)"
	echo "threads $(ls /proc/"$pid"/task | wc -l)"
	echo "memory $(awk '/^RssAnon:/ { print $2 }' /proc/"$pid"/status)"
fi
echo "mounts $(grep -c "$name" /proc/self/mountinfo)"
echo "cgroups $(find /sys/fs/cgroup -type d -name "*$name*" | wc -l)"
echo "processes $(grep -ls "$name" /proc/[0-9]*/environ /proc/[0-9]*/cgroup | wc -l)"
echo "network namespaces $(readlink /proc/[0-9]*/ns/net 2>/dev/null | sort -u | wc -l)"
echo "namespaces $(readlink /proc/[0-9]*/ns/mnt /proc/[0-9]*/ns/pid /proc/[0-9]*/ns/cgroup 2>/dev/null | sort -u | wc -l)"
echo "ipc $(ipcs -a 2>/dev/null | grep -c '^0x')"
