//! Cgroups and filters: what each start of a member pays for them. Needs root.
//!
//! Kernel work after a quiet moment costs more than back to back, so each sample comes after a pause.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::{
    process::{Child, Command, Stdio},
    time::Duration,
};

use divan::Bencher;
use podling::container::{
    cgroup::{Config, GroupCgroup, Layout, MemberCgroup, Policy, Request, default_devices, group_limits},
    seccomp::{Arch, Env, Profile, Program},
};

const QUIET: Duration = Duration::from_millis(150);

fn main() {
    divan::main();
}

fn request() -> Request {
    Request {
        cpus: 0.5,
        revocable: false,
        cpu_limit: None,
        memory: 64 << 20,
        memory_limit: None,
        share: false,
        pids: None,
    }
}

fn group(name: &str) -> GroupCgroup {
    let layout = Layout::detect(&Config::default());
    let limits = group_limits(&[request()], layout.policy());
    layout
        .group(&format!("bench-{}-{name}", std::process::id()), &limits)
        .unwrap()
}

fn member(group: &GroupCgroup) -> MemberCgroup {
    group.member("m", &request().limits(&Policy::default())).unwrap()
}

#[divan::bench(sample_count = 40, sample_size = 1)]
fn machine_is_looked_at(bencher: Bencher) {
    bencher.bench(|| Layout::detect(&Config::default()));
}

#[divan::bench(sample_count = 40, sample_size = 1)]
fn member_is_made_with_limits_and_devices(bencher: Bencher) {
    let group = group("make");
    bencher
        .with_inputs(|| std::thread::sleep(QUIET))
        .bench_values(|()| {
            let member = member(&group);
            member.restrict_devices(&default_devices()).unwrap();
            member
        });
}

#[divan::bench(sample_count = 40, sample_size = 1)]
fn empty_member_is_removed(bencher: Bencher) {
    let group = group("remove");
    bencher
        .with_inputs(|| {
            std::thread::sleep(QUIET);
            member(&group)
        })
        .bench_values(drop);
}

/// As members do it: the one that joins writes `0` to the descriptors. (Here a thread, which version 1 allows.)
#[divan::bench(sample_count = 40, sample_size = 1)]
fn joined_from_inside(bencher: Bencher) {
    let group = group("join");
    let member = member(&group);
    bencher
        .with_inputs(|| {
            std::thread::sleep(QUIET);
            member.join(true).unwrap()
        })
        .bench_local_values(|plan| {
            let join = || {
                for fd in plan.as_raw_fds() {
                    let path = format!("/proc/self/fd/{fd}");
                    std::fs::write(path, "0").unwrap();
                }
            };
            std::thread::scope(|scope| scope.spawn(join).join().unwrap());
        });
}

/// What joining from inside avoids.
#[divan::bench(sample_count = 20, sample_size = 1)]
fn moved_from_outside(bencher: Bencher) {
    let group = group("adopt");
    let member = member(&group);
    bencher
        .with_inputs(|| {
            let child = sleeper();
            std::thread::sleep(QUIET);
            child
        })
        .bench_local_values(|child| {
            member.adopt(child.id().cast_signed()).unwrap();
            Reaped(child)
        });
}

#[divan::bench(sample_count = 40, sample_size = 1)]
fn member_of_three_is_killed_until_empty(bencher: Bencher) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let group = group("kill");
    let member = member(&group);
    bencher
        .with_inputs(|| {
            let children: Vec<Reaped> = (0..3).map(|_| Reaped(sleeper())).collect();
            for child in &children {
                member.adopt(child.0.id().cast_signed()).unwrap();
            }
            std::thread::sleep(QUIET);
            children
        })
        .bench_local_values(|children| {
            runtime.block_on(member.destroy()).unwrap();
            children
        });
}

#[divan::bench]
fn default_filter_is_compiled(bencher: Bencher) {
    let env = Env {
        arch: Arch::native().unwrap(),
        caps: 0xa804_25fb,
        kernel: (6, 1),
    };
    bencher.bench(|| Program::compile(&Profile::docker_default(), &env).unwrap());
}

struct Reaped(Child);

impl Drop for Reaped {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn sleeper() -> Child {
    let child = Command::new("sleep")
        .arg("600")
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    // Its exec has happened once it can be seen under its name.
    while std::fs::read_to_string(format!("/proc/{}/comm", child.id())).is_ok_and(|name| name != "sleep\n") {
        std::thread::yield_now();
    }
    child
}
