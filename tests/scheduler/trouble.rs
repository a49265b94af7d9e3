//! What keeps the scheduler from its work is said to those who have access, and to nobody else.

use std::{net::TcpListener, process::Command};

use crate::process::Scheduler;

/// The header as curl hears it, run by somebody.
fn told(scheduler: &Scheduler, path: &str, who: &[&str]) -> (String, String) {
    let (program, rest) = who.split_first().unwrap();
    let output = Command::new(program)
        .args(rest)
        .args(["-s", "-m", "30", "-o", "/dev/null", "-w"])
        .arg("%{http_code} %header{podling-trouble}")
        .arg(format!("http://{}{path}", scheduler.address()))
        .output()
        .unwrap();
    let told = String::from_utf8(output.stdout).unwrap();
    let (status, trouble) = told.split_once(' ').unwrap();
    (status.to_owned(), trouble.to_owned())
}

#[test]
fn trouble_is_told_to_those_who_are_let_in_and_to_nobody_else() {
    // It takes connections, and says nothing.
    let master = TcpListener::bind("127.0.0.1:0").unwrap();
    let place = tempfile::tempdir().unwrap();
    let scheduler = Scheduler::start(master.local_addr().unwrap(), &place.path().join("state.db"));
    let stranger = [
        "setpriv",
        "--reuid",
        "65534",
        "--regid",
        "65534",
        "--clear-groups",
        "curl",
    ];
    for (path, open) in [
        ("/ping", "200"),
        ("/v2/pods", "401"),
        ("/v2/pods/no::status", "401"),
    ] {
        let (status, trouble) = told(&scheduler, path, &["curl"]);
        assert!(status == "200" || status == "404", "{path}: {status}");
        let words = format!("not connected to the master {}", master.local_addr().unwrap());
        assert!(trouble.starts_with(&words), "{path}: {trouble}");
        let (status, trouble) = told(&scheduler, path, &stranger);
        assert_eq!((status.as_str(), trouble.as_str()), (open, ""), "{path}");
    }
    // Neither are those who show what is none.
    let (status, trouble) = told(&scheduler, "/ping", &["curl", "-H", "Authorization: Bearer x"]);
    assert_eq!((status.as_str(), trouble.as_str()), ("200", ""));
}
