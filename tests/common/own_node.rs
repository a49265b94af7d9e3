//! A machine of a test's own.

use std::{process::Command, thread};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

/// Runs a test on a node of its own: its links, rules, mounts and `/run` are nobody else's. Root's privilege.
pub fn on_own_node(test: impl FnOnce() + Send + 'static) {
    let node = thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).expect("these tests need root");
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        let (tmpfs, open_to_read) = (Some("tmpfs"), Some("mode=755"));
        mount(tmpfs, "/run", tmpfs, MsFlags::empty(), open_to_read).unwrap();
        sh("ip link set lo up");
        test();
    });
    if let Err(panic) = node.join() {
        std::panic::resume_unwind(panic);
    }
}

/// A shell command on the node; answers what it prints.
pub fn sh(script: &str) -> String {
    let output = Command::new("sh").args(["-ec", script]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}: {complaint}{text}");
    text
}
