//! Compiles the members' init: a program of its own, for the same target, without the standard library.

use std::{env, io, path::Path, process::Command};

const SOURCE: &str = "src/sys/init";

/// Leaves `podling-init` in `OUT_DIR`, for the runtime to embed.
pub fn compile() -> io::Result<()> {
    println!("cargo::rerun-if-changed={SOURCE}");
    println!("cargo::rerun-if-changed=build/init.rs");
    let variable = |name: &str| env::var(name).map_err(io::Error::other);
    let (target, out) = (variable("TARGET")?, variable("OUT_DIR")?);
    let mut rustc = Command::new(variable("RUSTC")?);
    rustc
        .args([
            "--edition",
            "2024",
            "--crate-name",
            "podling_init",
            "--crate-type",
            "bin",
            "--target",
            &target,
        ])
        .args(["-C", "opt-level=s", "-C", "panic=abort", "-C", "strip=symbols"])
        .args([
            "-C",
            "relocation-model=static",
            "-C",
            "target-feature=+crt-static",
        ])
        .args([
            "-C",
            "link-arg=-nostartfiles",
            "-C",
            "link-arg=-nostdlib",
            "-C",
            "link-arg=-static",
            "-C",
            "link-arg=-no-pie",
        ])
        .args([
            "-C",
            "link-arg=-Wl,--build-id=none,-z,norelro,-z,noseparate-code,--no-eh-frame-hdr",
        ])
        .arg("-o")
        .arg(Path::new(&out).join("podling-init"))
        .arg(Path::new(SOURCE).join("main.rs"));
    // Start files of musl come with the compiler, not with the linker, and are not wanted either.
    if target.ends_with("musl") {
        rustc.args(["-C", "link-self-contained=no"]);
    }
    if let Ok(linker) = env::var("RUSTC_LINKER") {
        rustc.arg("-C").arg(format!("linker={linker}"));
    }
    match rustc.status()? {
        status if status.success() => Ok(()),
        status => Err(io::Error::other(format!(
            "compiling {SOURCE}: rustc ended with {status}"
        ))),
    }
}
