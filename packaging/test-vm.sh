#!/bin/sh
# Runs the cgroup tests on a machine with version 2 only: Debian's own kernel in an emulated machine, which needs
# neither hardware support nor root on the disk of this one. Everything is kept below target/vm; nothing is installed.
set -eu

cd "$(dirname "$0")/.."
vm=$PWD/target/vm
mkdir -p "$vm/debs/partial" "$vm/tools"

# The emulator, the kernel and a shell for it, from Debian's packages.
if [ ! -e "$vm/tools/done" ]; then
	apt-get install -y --reinstall --download-only --no-install-recommends -o "Dir::Cache::archives=$vm/debs" \
		qemu-system-x86 linux-image-cloud-amd64 busybox-static >"$vm/apt.log" 2>&1 || {
		cat "$vm/apt.log" >&2
		echo "test-vm: cannot download the emulator and the kernel" >&2
		exit 1
	}
	for deb in "$vm"/debs/*.deb; do
		dpkg-deb -x "$deb" "$vm/tools"
	done
	touch "$vm/tools/done"
fi
tool() {
	name=$1
	shift
	if command -v "$name" >/dev/null; then
		"$name" "$@"
	else
		libraries=$(find "$vm/tools" -name 'libcapstone.so*' -exec dirname {} \; | head -n 1)
		program=$(find "$vm/tools" -type f -path "*/bin/$name" | head -n 1)
		LD_LIBRARY_PATH=$libraries "$program" "$@"
	fi
}

cargo build --bin podling
binary=$(cargo test --no-run --test cgroup --message-format=json 2>/dev/null |
	sed -n 's/.*"name":"cgroup".*"executable":"\([^"]*\)".*/\1/p' | tail -n 1)
podling=$PWD/target/debug/podling

# Its root: the tests, what they are linked to, and a shell with the usual commands.
root=$vm/root
rm -rf "$root"
mkdir -p "$root/bin" "$root/proc" "$root/sys" "$root/dev" "$root/tmp" "$root$(dirname "$podling")"
cp "$binary" "$root/tests"
cp "$podling" "$root$podling"
for library in $(ldd "$binary" "$podling" | grep -o '/[^ :]*' | sort -u); do
	case $library in
	*.so*)
		mkdir -p "$root$(dirname "$library")"
		cp -L "$library" "$root$library"
		;;
	esac
done
busybox=$(find "$vm/tools" -path '*/bin/busybox' | head -n 1)
cp "$busybox" "$root/bin/busybox"
for name in $("$busybox" --list | grep -v '^busybox$'); do
	ln -sf busybox "$root/bin/$name"
done
cat >"$root/init" <<'INIT'
#!/bin/sh
export PATH=/bin HOME=/ RUST_BACKTRACE=0 EXPECTED_CGROUP_MODE=Unified
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
mount -t cgroup2 cgroup /sys/fs/cgroup
result=0
# In the root of the hierarchy.
/tests --test-threads=1 kill:: limits:: janitor:: hosts:: || result=1
# As an executor of an agent, alone in its cgroup, and with others there.
cd /sys/fs/cgroup
echo "+cpu +memory +pids" >cgroup.subtree_control
mkdir -p mesos/one/leaf mesos/two/leaf
for at in mesos mesos/one mesos/two; do
	echo "+cpu +memory +pids" >$at/cgroup.subtree_control
done
leaf="--ignored --exact hosts::w_03_the_executor_moves_to_a_leaf_of_its_own"
sh -c "echo 0 >mesos/one/leaf/cgroup.procs; ALONE_IN_CGROUP=1 exec /tests $leaf" || result=1
sh -c "echo 0 >mesos/two/leaf/cgroup.procs; /tests $leaf; exit \$?" || result=1
echo "test-vm result $result"
poweroff -f
INIT
chmod +x "$root/init"
(cd "$root" && find . | "$busybox" cpio -o -H newc 2>/dev/null) | gzip -1 >"$vm/initramfs"

kernel=$(find "$vm/tools/boot" -name 'vmlinuz-*' | sort | tail -n 1)
data=$vm/tools/usr/share
tool qemu-system-x86_64 -accel tcg -m 1024 -smp 2 -nographic -no-reboot -nodefaults -serial stdio \
	-L "$data/qemu" -L "$data/seabios" -L "$data/ipxe/qemu" \
	-kernel "$kernel" -initrd "$vm/initramfs" -append "console=ttyS0 quiet panic=-1 oops=panic" </dev/null |
	tee "$vm/console.log"
grep -q '^test-vm result 0' "$vm/console.log"
