# `make test` is all a fresh Debian needs; the packages it installs are named in packaging/test-packages.txt.

MUSL := x86_64-unknown-linux-musl
PACKAGES := packaging/test-packages.txt

.PHONY: run build test test-vm test-packages bench fmt lint release clean

run: ## the quick start
	cargo run --release -- up examples/hello.json

build:
	cargo build --release

test: test-packages
	cargo test --no-fail-fast

# Cgroup version 2 alone, on Debian's kernel in an emulated machine; a minute, and a download of 50 MB the first time.
test-vm:
	@packaging/test-vm.sh

# Only asks the package manager, and PyPI, when something is missing.
test-packages:
	@packaging/install-test-packages $(PACKAGES)
	@packaging/install-test-python

bench:
	cargo bench

fmt:
	cargo fmt

lint:
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings

# Static binaries: with musl where its Rust target and its C compiler (Debian's musl-tools) are installed, which takes
# half the memory; else with glibc linked in.
release:
	@if [ -d "$$(rustc --print target-libdir --target $(MUSL))" ] && command -v musl-gcc >/dev/null; then \
		CC_x86_64_unknown_linux_musl=musl-gcc cargo build --profile dist --bins --target $(MUSL); \
	else \
		RUSTFLAGS="-C target-feature=+crt-static" cargo build --profile dist --bins --target x86_64-unknown-linux-gnu; \
	fi

clean:
	cargo clean
