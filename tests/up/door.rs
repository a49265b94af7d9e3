//! Nobody but the owner gets in: not web pages, not other users, not members, whoever they are to the kernel.

use std::{
    collections::BTreeSet,
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    os::unix::fs::PermissionsExt as _,
    process::Command,
    time::Duration,
};

use serde_json::{Value, json};

use crate::cluster::{Up, output, podling, write};

/// A user who owns nothing.
const NOBODY: &str = "65534";

fn pod(id: &str, shell: &str) -> Value {
    json!({
        "id": id,
        "networks": [{"mode": "host"}],
        "containers": [{"name": "c", "exec": {"command": {"shell": shell}}, "resources": {"cpus": 0.1, "mem": 32}}],
    })
}

/// What a client of its own making gets to hear.
#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

fn read_answer(socket: &mut TcpStream) -> Answer {
    let mut answer = Vec::new();
    // Whoever breaks off has said all that we get to hear.
    let _ = socket.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    Answer {
        status: head.split(' ').nth(1).map_or(0, |status| status.parse().unwrap()),
        head: head.to_ascii_lowercase(),
        body: body.to_owned(),
    }
}

fn connect(address: &str) -> TcpStream {
    let socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    socket
}

/// One request on a connection of its own, with these headers and no others.
fn ask(address: &str, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let mut request = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n");
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str(&format!("Content-Length: {}\r\n\r\n{body}", body.len()));
    let mut socket = connect(address);
    socket.write_all(request.as_bytes()).unwrap();
    read_answer(&mut socket)
}

fn address(up: &Up) -> String {
    up.url.trim_start_matches("http://").to_owned()
}

/// The status that curl hears, run by somebody.
fn curl(user: Option<&str>, arguments: &[&str]) -> String {
    let mut command = match user {
        Some(user) => {
            let mut command = Command::new("setpriv");
            command.args(["--reuid", user, "--regid", user, "--clear-groups", "curl"]);
            command
        }
        None => Command::new("curl"),
    };
    command
        .args(["-s", "-m", "30", "-o", "/dev/null", "-w", "%{http_code}"])
        .args(arguments);
    output(&mut command).1
}

fn pods(up: &Up) -> Value {
    up.json(&["list"])
}

#[test]
fn a_page_in_a_browser_starts_nothing() {
    let up = Up::start(&[]);
    let address = address(&up);
    let evil = pod("/evil", "sleep 1000").to_string();
    let json = ("Content-Type", "application/json");
    let own = ("Host", address.as_str());
    for (headers, status) in [
        // DNS rebinding: to the browser it is the page's own server.
        (vec![("Host", "evil.example"), json], 403),
        (
            vec![
                ("Host", "evil.example:8080"),
                ("Origin", "http://evil.example:8080"),
                json,
            ],
            403,
        ),
        (vec![own, ("Origin", "http://evil.example"), json], 403),
        (vec![own, ("Origin", "null"), json], 403),
        (vec![own, ("Origin", "http://localhost:3000"), json], 403),
        (vec![own, ("Sec-Fetch-Site", "cross-site"), json], 403),
        // What needs no leave of ours to be sent.
        (vec![own, ("Content-Type", "text/plain")], 415),
        (
            vec![own, ("Content-Type", "multipart/form-data; boundary=x")],
            415,
        ),
        (
            vec![
                own,
                ("Content-Type", "application/x-www-form-urlencoded"),
                ("Referer", "http://evil.example/"),
            ],
            415,
        ),
    ] {
        let answer = ask(&address, "POST", "/v2/pods", &headers, &evil);
        assert_eq!(answer.status, status, "{headers:?}: {answer:?}");
        let told: Value = serde_json::from_str(&answer.body).unwrap();
        assert!(told["message"].is_string(), "{told}");
    }
    // Nor does it read anything.
    for path in ["/v2/pods", "/v2/info", "/ping"] {
        let answer = ask(&address, "GET", path, &[("Host", "evil.example")], "");
        assert_eq!(answer.status, 403, "{path}");
    }
    assert_eq!(pods(&up), json!([]));
    up.stop();
}

#[test]
fn the_owner_needs_nothing_and_the_token_opens_to_others() {
    let place = tempfile::tempdir().unwrap();
    let state = place.path().join("state");
    let up = Up::start(&["--state", state.to_str().unwrap()]);
    let (address, url) = (address(&up), format!("{}/v2/pods", up.url));
    let file = state.join("token");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o7777, 0o600);
    let token = fs::read_to_string(&file).unwrap().trim().to_owned();

    // As the README types it, and as `curl -d` sends it.
    assert_eq!(curl(None, &[&url]), "200");
    assert_eq!(
        curl(None, &["-d", &pod("/one", "sleep 1000").to_string(), &url]),
        "201"
    );
    assert_eq!(
        curl(None, &["-X", "DELETE", &format!("{url}/one?force=true")]),
        "202"
    );
    assert_eq!(
        curl(
            None,
            &[&format!("{}/v2/pods", up.url.replace("127.0.0.1", "localhost"))]
        ),
        "200"
    );

    // Somebody else.
    assert_eq!(curl(Some(NOBODY), &[&url]), "401");
    assert_eq!(
        curl(Some(NOBODY), &["-d", &pod("/evil", "true").to_string(), &url]),
        "401"
    );
    assert_eq!(
        curl(Some(NOBODY), &["-X", "DELETE", &format!("{url}/one")]),
        "401"
    );
    assert_eq!(curl(Some(NOBODY), &[&format!("{}/ping", up.url)]), "200");
    for (credentials, status) in [
        (format!("Authorization: Bearer {token}"), "200"),
        // As dcoscli sends it.
        (format!("Authorization: token={token}"), "200"),
        (format!("Authorization: Bearer {token}x"), "401"),
        ("Authorization: Bearer".to_owned(), "401"),
        ("Authorization: Negotiate abc".to_owned(), "401"),
    ] {
        assert_eq!(curl(Some(NOBODY), &["-H", &credentials, &url]), status);
    }
    // Clients of Marathon's that know basic auth alone.
    assert_eq!(
        curl(Some(NOBODY), &["-u", &format!("marathon:{token}"), &url]),
        "200"
    );

    // What is wrong is not made good by being the owner, nor by being asked through somebody.
    let host = ("Host", address.as_str());
    let answer = ask(
        &address,
        "GET",
        "/v2/pods",
        &[host, ("Authorization", "Bearer x")],
        "",
    );
    assert_eq!(answer.status, 401);
    assert!(
        answer.head.contains("www-authenticate: bearer"),
        "{}",
        answer.head
    );
    assert!(serde_json::from_str::<Value>(&answer.body).unwrap()["message"].is_string());
    assert!(!answer.body.contains(&token));
    assert_eq!(
        ask(
            &address,
            "GET",
            "/v2/pods",
            &[host, ("X-Forwarded-For", "192.0.2.1")],
            ""
        )
        .status,
        401
    );
    up.stop();
}

/// Where this process listens, as the kernel has it.
fn listening(pid: i32) -> BTreeSet<u16> {
    let inodes: BTreeSet<String> = fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
        .filter_map(|link| {
            Some(
                link.to_str()?
                    .strip_prefix("socket:[")?
                    .trim_end_matches(']')
                    .to_owned(),
            )
        })
        .collect();
    fs::read_to_string(format!("/proc/{pid}/net/tcp"))
        .unwrap()
        .lines()
        .skip(1)
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|fields| fields[3] == "0A" && inodes.contains(fields[9]))
        .map(|fields| u16::from_str_radix(fields[1].split_once(':').unwrap().1, 16).unwrap())
        .collect()
}

/// Asks everything that `up` serves, and says what it hears.
fn attack(ports: &BTreeSet<u16>) -> String {
    let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
    format!(
        "for port in {}; do for path in v2/pods api/v1/scheduler api/v1/executor; do \
         echo \"HEARD $(curl -s -m 20 -o /dev/null -w '%{{http_code}}' -H 'Content-Type: application/json' -d '{{}}' \
         http://127.0.0.1:$port/$path)\"; done; done; id -u; echo DONE; sleep 1000",
        ports.join(" ")
    )
}

/// CVE-2020-15257: to the kernel a root member on the host's network is the owner.
#[test]
fn members_on_the_hosts_network_get_in_nowhere() {
    let place = tempfile::tempdir().unwrap();
    let mut up = Up::start(&["--follow"]);
    let ports = listening(up.pid().as_raw());
    // The API, the master and the agent.
    assert_eq!(ports.len(), 3, "{ports:?}");
    for (id, user) in [("/root", "root"), ("/other", NOBODY)] {
        let mut attacker = pod(id, &attack(&ports));
        attacker["user"] = json!(user);
        let file = write(place.path(), "pod.json", &attacker.to_string());
        let (code, _, stderr) = up.pod(&["add", file.to_str().unwrap()]);
        assert_eq!(code, 0, "{stderr}");
        let seen = up.seen.len();
        up.wait_for("| DONE");
        let heard: Vec<&str> = up.seen[seen..]
            .iter()
            .filter_map(|line| line.split_once("| HEARD ").map(|(_, status)| status))
            .collect();
        assert_eq!(heard, ["401"; 9], "{}", up.seen.join("\n"));
    }
    up.stop();
}

/// Lets us hold many connections.
fn raise_our_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
}

#[test]
fn half_sent_requests_stop_neither_the_api_nor_executors() {
    raise_our_limit();
    let mut command = Command::new("prlimit");
    command.args([
        "--nofile=1024:1024",
        env!("CARGO_BIN_EXE_podling"),
        "up",
        "--listen",
        "127.0.0.1:0",
    ]);
    let mut up = Up::of(command);
    let place = tempfile::tempdir().unwrap();
    let file = write(place.path(), "pod.json", &pod("/after", "sleep 1000").to_string());
    let mut held = Vec::new();
    for port in listening(up.pid().as_raw()) {
        for _ in 0..1100 {
            let mut socket = TcpStream::connect(("127.0.0.1", port)).unwrap();
            // One that has been told to go already breaks here.
            let _ = socket.write_all(b"POST /v2/pods HTTP/1.1\r\nHost: localhost\r\n");
            held.push(socket);
        }
    }
    let (code, _, stderr) = up.pod(&["add", file.to_str().unwrap()]);
    assert_eq!(code, 0, "{stderr}");
    up.wait_for("/after c · RUNNING");
    assert_eq!(up.json(&["status", "/after"])["id"], "/after");
    drop(held);
    up.stop();
}

#[test]
fn who_writes_too_much_first_hears_why_it_is_refused() {
    let up = Up::start(&[]);
    let address = address(&up);
    let mut socket = connect(&address);
    let length = 32 << 20;
    let head = format!(
        "POST /v2/pods HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
    );
    socket.write_all(head.as_bytes()).unwrap();
    // Reads nothing before all is written.
    socket.write_all(&vec![b' '; length]).unwrap();
    let answer = read_answer(&mut socket);
    assert_eq!(answer.status, 413, "{answer:?}");
    // Of no announced length.
    let mut socket = connect(&address);
    let head = format!(
        "POST /v2/pods HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    );
    socket.write_all(head.as_bytes()).unwrap();
    let chunk = [b"100000\r\n".to_vec(), vec![b' '; 1 << 20], b"\r\n".to_vec()].concat();
    for _ in 0..16 {
        socket.write_all(&chunk).unwrap();
    }
    socket.write_all(b"0\r\n\r\n").unwrap();
    assert_eq!(read_answer(&mut socket).status, 413);
    up.stop();
}

#[test]
fn insecure_is_said_and_lets_everybody_in() {
    let mut command = podling();
    command
        .args(["up", "--listen", "127.0.0.1:0", "--insecure"])
        .stderr(std::process::Stdio::piped());
    let up = Up::of(command);
    assert_eq!(curl(Some(NOBODY), &[&format!("{}/v2/pods", up.url)]), "200");
    up.stop();
    let (code, _, stderr) = output(podling().args(["loopback", "master", "--listen", "0.0.0.0:0"]));
    assert_eq!(code, 2);
    assert!(stderr.contains("--insecure"), "{stderr}");
}

#[test]
fn the_socket_is_the_owners() {
    let place = tempfile::tempdir().unwrap();
    let state = place.path().join("state");
    let mut up = Up::start(&["--follow", "--state", state.to_str().unwrap()]);
    let socket = state.join("api.sock");
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    let url = format!("unix:{}", socket.display());
    let (code, _, stderr) = output(podling().args(["pod", "list", "--url", &url]));
    assert_eq!(code, 0, "{stderr}");
    let with_token = format!(
        "Authorization: Bearer {}",
        fs::read_to_string(state.join("token")).unwrap().trim()
    );
    let path = socket.to_str().unwrap();
    assert_eq!(
        curl(
            None,
            &["--unix-socket", path, "-H", &with_token, "http://any/v2/pods"]
        ),
        "200"
    );
    // A root member on the host's file system can reach it, and is not taken for the owner.
    let shell = format!(
        "echo \"HEARD $(curl -s -m 20 -o /dev/null -w '%{{http_code}}' --unix-socket {path} http://any/v2/pods)\"; \
         echo DONE; sleep 1000"
    );
    let file = write(place.path(), "pod.json", &pod("/root", &shell).to_string());
    assert_eq!(up.pod(&["add", file.to_str().unwrap()]).0, 0);
    up.wait_for("| DONE");
    assert!(
        up.seen.iter().any(|line| line.ends_with("| HEARD 401")),
        "{}",
        up.seen.join("\n")
    );
    up.stop();
    assert!(!socket.exists());
}
