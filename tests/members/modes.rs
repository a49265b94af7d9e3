//! S3, every class that needs nothing special of an image, in every mode that members can be run in: a table of
//! modes, a table of classes, and why where one of the other makes no sense.
//!
//! Each class is shown to notice: on a runtime without its protection, in each mode, the same line says something
//! else, or the table says what holds all the same.

use std::{fs::File, os::fd::OwnedFd, sync::Arc};

use podling::container::{
    IdRange,
    plan::{self, Capabilities, CapabilitySet, Context, Defaults, Network, PidNamespace, Plan, UserSpec},
};

use crate::support::{World, shell};

#[derive(Debug, Clone, Copy)]
pub struct Mode {
    name: &'static str,
    image: bool,
    shared: bool,
    own_network: bool,
    users: bool,
    pub rootless: bool,
    /// Asks to be the user 0 of its image.
    root: bool,
}

const PLAIN: Mode = Mode {
    name: "",
    image: false,
    shared: false,
    own_network: false,
    users: false,
    rootless: false,
    root: false,
};

#[rustfmt::skip]
pub const MODES: [Mode; 13] = [
    Mode { name: "image", image: true, ..PLAIN },
    Mode { name: "no image", ..PLAIN },
    Mode { name: "image, shared processes", image: true, shared: true, ..PLAIN },
    Mode { name: "no image, shared processes", shared: true, ..PLAIN },
    Mode { name: "image, own network", image: true, own_network: true, ..PLAIN },
    Mode { name: "image, shared processes, own network", image: true, shared: true, own_network: true, ..PLAIN },
    Mode { name: "no image, shared processes, own network", shared: true, own_network: true, ..PLAIN },
    Mode { name: "image, own users", image: true, users: true, ..PLAIN },
    Mode { name: "no image, own users", users: true, ..PLAIN },
    Mode { name: "image, shared processes, own network, own users", image: true, shared: true, own_network: true, users: true, ..PLAIN },
    Mode { name: "image, without root", image: true, rootless: true, ..PLAIN },
    Mode { name: "image, without root, as its root", image: true, rootless: true, root: true, ..PLAIN },
    Mode { name: "no image, without root", rootless: true, ..PLAIN },
];

struct Class {
    name: &'static str,
    /// Beside Docker's set.
    capabilities: u64,
    /// Says nothing where all is well. `MARK` is a file of the host that no image has.
    line: &'static str,
    left_out: &'static [&'static str],
    /// Why it is not for this mode.
    senseless: fn(Mode) -> Option<&'static str>,
    /// What holds in this mode without the protection that is left out.
    holds_all_the_same: fn(Mode) -> Option<&'static str>,
}

const NEVER: fn(Mode) -> Option<&'static str> = |_| None;
const SYS_PTRACE: u64 = 1 << 19;

const CLASSES: [Class; 5] = [
    Class {
        name: "self-exe overwrite, readable state of the init",
        capabilities: 0,
        line: "for f in exe environ maps auxv; do cat /proc/1/$f >/dev/null 2>&1 && echo $f; done; true",
        left_out: &["become opaque"],
        senseless: NEVER,
        holds_all_the_same: |mode| match mode {
            Mode { users: true, .. } => Some("it belongs to another user"),
            // Of the same user, but whoever looks needs power where the init is. One who asks to be root has that.
            Mode {
                rootless: true,
                root: false,
                ..
            } => {
                Some("the task is in a user namespace of its own below the init's, and has no power in that")
            }
            _ => None,
        },
    },
    Class {
        name: "the first process' root, for those who may trace",
        capabilities: SYS_PTRACE,
        line: "test -e /proc/1/rootMARK && echo root; test -e /proc/1/cwdMARK && echo cwd; true",
        left_out: &[
            "mount an empty root",
            "enter the root file system",
            "change the root",
            "let go of the old root",
            "change to the new root",
        ],
        senseless: |mode| (!mode.image && !mode.shared).then_some("its root is the host's, as Mesos has it"),
        holds_all_the_same: |mode| match mode {
            Mode { users: true, .. } => Some("it belongs to another user"),
            Mode { image: true, .. } => Some("without those steps there is no root of its own to run in"),
            _ => None,
        },
    },
    Class {
        name: "processes with more than the member has",
        capabilities: SYS_PTRACE,
        line: "for p in /proc/[0-9]*; do grep -E '^(NoNewPrivs|Seccomp):' $p/status 2>/dev/null | \
               while read a b; do test $b = 0 && echo $a; done; done; true",
        left_out: &["give up new privileges", "install the system call filter"],
        senseless: NEVER,
        holds_all_the_same: NEVER,
    },
    Class {
        name: "leaked descriptor",
        capabilities: SYS_PTRACE,
        line: "test $(ls /proc/self/fd | wc -l) = 4 || echo more",
        left_out: &["close what is not the task's", "close what is ours"],
        senseless: NEVER,
        holds_all_the_same: NEVER,
    },
    Class {
        name: "host-side doors, masks undone",
        capabilities: SYS_PTRACE,
        line: "umount /proc/keys 2>/dev/null && echo unmounted; v=$(cat /proc/sys/kernel/panic); \
               (echo $v > /proc/sys/kernel/panic) 2>/dev/null && echo sysctl; true",
        left_out: &["make /proc/sys read-only"],
        senseless: |mode| (!mode.image).then_some("its root is the host's, as Mesos has it"),
        holds_all_the_same: |mode| (mode.users || mode.rootless).then_some("its root is nobody on the host"),
    },
];

fn network() -> Arc<OwnedFd> {
    let made = std::thread::spawn(|| {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        File::open("/proc/thread-self/ns/net").unwrap()
    });
    Arc::new(made.join().unwrap().into())
}

fn plan(world: &World, mode: Mode, class: &Class) -> Plan {
    let mark = world.sandbox().join("mark");
    std::fs::write(&mark, "").unwrap();
    let line = class.line.replace("MARK", mark.to_str().unwrap());
    let context = match mode.image {
        true => world.rooted(),
        false => world.context(),
    };
    let users = mode.users.then(|| {
        let range = IdRange::new(300_000, 65_536).unwrap();
        Arc::new(world.runtime.map_users(range).unwrap())
    });
    let context = Context { users, ..context };
    let mut plan = plan::member(&shell(&line), None, &context, &Defaults::default()).unwrap();
    let set = CapabilitySet(CapabilitySet::DOCKER.0 | class.capabilities);
    plan.capabilities = Capabilities::bounded(set);
    if mode.shared {
        plan.namespaces.pid = PidNamespace::Shared("pod".into());
    }
    if mode.root {
        plan.user = UserSpec::Named {
            text: "root".into(),
            host_too: false,
        };
    }
    if mode.own_network {
        plan.namespaces.network = Network::Join(network());
    }
    plan
}

/// All classes in those modes.
pub async fn every_class(modes: impl Iterator<Item = Mode>) {
    // Somebody forgot to mark one.
    let leak = File::open("/").unwrap();
    rustix::io::fcntl_setfd(&leak, rustix::io::FdFlags::empty()).unwrap();
    for mode in modes {
        for class in &CLASSES {
            let at = format!("{}: {}", mode.name, class.name);
            if (class.senseless)(mode).is_some() {
                continue;
            }
            let world = World::new();
            let done = world.run(plan(&world, mode, class)).await;
            assert_eq!(done.said(), "", "{at}: {done:?}");
            if (class.holds_all_the_same)(mode).is_some() {
                continue;
            }
            let world = World::weakened(class.left_out);
            let done = world.run(plan(&world, mode, class)).await;
            assert_ne!(done.stdout, "", "{at}: the test would not notice: {done:?}");
        }
    }
}

#[tokio::test]
async fn s3_every_class_in_every_mode() {
    if rustix::process::geteuid().is_root() {
        every_class(MODES.into_iter().filter(|mode| !mode.rootless)).await;
    }
}
