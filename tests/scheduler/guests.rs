//! Whom a scheduler lets in: users and tokens with roles, over TLS, by certificate.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

const NOBODY: &str = "65534";

/// `openssl passwd -6 -salt saltstring 'Hello world!'`
const HASH: &str =
    "$6$saltstring$svn8UoSVapNtMuq1ukKS4tPQd8iKwSMHWjl/O817G3uBnIFNjnQJuesI68u4OTLiBFdcbYEdFCoEOfaS35inz1";
/// `printf %s long-token | sha256sum`
const TOKEN: &str = "long-token";

fn sha256(text: &str) -> String {
    use sha2::{Digest as _, Sha256};
    Sha256::digest(text)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// A scheduler without a master, and the files it was given.
struct Server {
    child: Child,
    url: String,
    place: tempfile::TempDir,
}

impl Server {
    fn start(arguments: &[&str]) -> Self {
        let place = tempfile::tempdir().unwrap();
        // Another user has to find the authority's certificate.
        fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).unwrap();
        for name in [
            "authority.pem",
            "agent-by-address.pem",
            "agent-by-address.key",
            "agent-by-name.pem",
            "agent-by-name.key",
            "client.pem",
            "client.key",
            "stranger.pem",
        ] {
            fs::copy(
                Path::new(env!("CARGO_MANIFEST_DIR"))
                    .join("tests/fixtures/tls")
                    .join(name),
                place.path().join(name),
            )
            .unwrap();
            fs::set_permissions(place.path().join(name), fs::Permissions::from_mode(0o644)).unwrap();
        }
        let users = format!(
            "[[user]]\nname = \"ci\"\npassword = \"{HASH}\"\nrole = \"write\"\n\
             [[user]]\nname = \"guest\"\npassword = \"{HASH}\"\nrole = \"read\"\n\
             [[token]]\nname = \"board\"\nsha256 = \"{}\"\nrole = \"read\"\n",
            sha256(TOKEN)
        );
        write_users(&place.path().join("users.toml"), &users);
        let mut child = Command::new(env!("CARGO_BIN_EXE_podling"))
            .current_dir(place.path())
            .args([
                "scheduler",
                "--listen",
                "127.0.0.1:0",
                "--master",
                "http://127.0.0.1:1",
                "--store",
                "state.db",
            ])
            .args(arguments)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let url = loop {
            let mut line = String::new();
            assert_ne!(stderr.read_line(&mut line).unwrap(), 0, "it ended");
            if let Some((_, rest)) = line.split_once("pods API at ") {
                break rest.split(',').next().unwrap().to_owned();
            }
        };
        std::thread::spawn(move || stderr.lines().map_while(Result::ok).for_each(drop));
        Server { child, url, place }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    /// The status that curl hears, run by another user.
    fn ask(&self, arguments: &[&str]) -> String {
        let output = Command::new("setpriv")
            .current_dir(self.place.path())
            .args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"])
            .args([
                "curl",
                "-s",
                "-m",
                "30",
                "-o",
                "/dev/null",
                "-w",
                "%{http_code}",
                "--cacert",
                "authority.pem",
            ])
            .args(arguments)
            .arg(format!("{}/v2/pods", self.url))
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    fn await_answer(&self, arguments: &[&str], status: &str) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.ask(arguments) != status {
            assert!(Instant::now() < deadline, "never {status}");
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn write_users(path: &Path, text: &str) {
    let new = path.with_extension("new");
    fs::write(&new, text).unwrap();
    fs::set_permissions(&new, fs::Permissions::from_mode(0o600)).unwrap();
    fs::rename(new, path).unwrap();
}

const POD: &str =
    r#"{"id": "/p", "containers": [{"name": "c", "resources": {}, "exec": {"command": {"shell": "x"}}}]}"#;

#[test]
fn users_and_tokens_do_what_their_roles_allow_and_are_read_again() {
    let server = Server::start(&["--users", "users.toml"]);
    let token = format!("Authorization: token={TOKEN}");
    assert_eq!(server.ask(&[]), "401");
    assert_eq!(server.ask(&["-u", "ci:Hello world!"]), "200");
    assert_eq!(server.ask(&["-u", "ci:Hello world?"]), "401");
    assert_eq!(server.ask(&["-u", "nobody:Hello world!"]), "401");
    assert_eq!(server.ask(&["-H", &token]), "200");
    assert_eq!(server.ask(&["-u", &format!("any:{TOKEN}")]), "200");
    for reader in [["-H", token.as_str()], ["-u", "guest:Hello world!"]] {
        assert_eq!(server.ask(&[&reader[..], &["-d", POD]].concat()), "403");
        assert_eq!(server.ask(&[&reader[..], &["-X", "DELETE"]].concat()), "403");
    }
    assert_eq!(server.ask(&["-u", "ci:Hello world!", "-d", POD]), "201");

    let only = format!(
        "[[token]]\nname = \"new\"\nsha256 = \"{}\"\nrole = \"write\"\n",
        sha256("new-token")
    );
    write_users(&server.path("users.toml"), &only);
    server.await_answer(&["-u", "ci:Hello world!"], "401");
    assert_eq!(server.ask(&["-H", &token]), "401");
    assert_eq!(server.ask(&["-H", "Authorization: Bearer new-token"]), "200");
}

#[test]
fn certificates_let_in_and_are_replaced_while_it_runs() {
    let tls = [
        "--tls-cert",
        "server.pem",
        "--tls-key",
        "server.key",
        "--tls-client-ca",
        "authority.pem",
    ];
    let files = |server: &Path, name: &str| {
        fs::copy(server.join(format!("{name}.pem")), server.join("server.pem")).unwrap();
        fs::copy(server.join(format!("{name}.key")), server.join("server.key")).unwrap();
    };
    // Not there yet.
    let refused = Command::new(env!("CARGO_BIN_EXE_podling"))
        .args([
            "scheduler",
            "--master",
            "http://127.0.0.1:1",
            "--store",
            "/proc/nowhere/x",
            "--listen",
            "127.0.0.1:0",
        ])
        .args(["--tls-cert", "/nowhere/a", "--tls-key", "/nowhere/b"])
        .output()
        .unwrap();
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("/nowhere/a"));

    let tls: Vec<String> = tls
        .iter()
        .map(|word| word.replace("server.", "agent-by-address."))
        .collect();
    let tls: Vec<&str> = tls.iter().map(String::as_str).collect();
    let server = Server::start(&tls);
    assert!(server.url.starts_with("https://"), "{}", server.url);
    assert_eq!(server.ask(&[]), "401");
    assert_eq!(
        server.ask(&["--cert", "client.pem", "--key", "client.key"]),
        "200"
    );
    assert_eq!(
        server.ask(&["--cert", "client.pem", "--key", "client.key", "-d", POD]),
        "201"
    );
    // Plain HTTP is nothing that a handshake begins with.
    let plain = Command::new("curl")
        .args(["-s", "-m", "30", &server.url.replace("https", "http")])
        .output()
        .unwrap();
    assert!(!plain.status.success());

    // Our own client, with a certificate that our authority has signed, and one it has not.
    let list = |ca: &str| {
        Command::new(env!("CARGO_BIN_EXE_podling"))
            .current_dir(server.place.path())
            .args(["pod", "list", "--url", &server.url, "--ca", ca])
            .output()
            .unwrap()
    };
    assert!(
        list("authority.pem").status.success(),
        "{:?}",
        list("authority.pem")
    );
    assert_eq!(list("stranger.pem").status.code(), Some(1));

    files(server.place.path(), "agent-by-name");
    for kind in ["pem", "key"] {
        fs::rename(
            server.path(&format!("server.{kind}")),
            server.path(&format!("agent-by-address.{kind}")),
        )
        .unwrap();
    }
    // The new one is good for another name.
    server.await_answer(&["--cert", "client.pem", "--key", "client.key"], "000");
}

#[test]
fn beyond_loopback_nobody_listens_without_guests() {
    let start = |arguments: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_podling"))
            .args([
                "scheduler",
                "--master",
                "http://127.0.0.1:1",
                "--listen",
                "0.0.0.0:0",
                "--store",
                "/proc/nowhere/x",
            ])
            .args(arguments)
            .output()
            .unwrap()
    };
    let refused = start(&[]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--users"));
    // Goes on to what comes next, and says what that means.
    let warned = start(&["--insecure"]);
    assert_eq!(warned.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&warned.stderr).contains("--insecure: whoever"));
}
