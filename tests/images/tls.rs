//! Registries behind TLS, good and bad ones. Nothing of an image is asked of a peer that is not who it should be.

use std::{
    io::{BufReader, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

use super::{
    build::{Layer, TestImage},
    fake::{Content, Reply, read_request},
    pull::TestStore,
};

/// A certificate authority of its own, by openssl.
struct Authority {
    directory: tempfile::TempDir,
}

impl Authority {
    fn new() -> Authority {
        let directory = tempfile::tempdir().unwrap();
        let subject = format!("/CN={}", directory.path().file_name().unwrap().to_str().unwrap());
        let authority = Authority { directory };
        authority.openssl(&[
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-keyout",
            "ca.key",
            "-out",
            "ca.pem",
            "-subj",
            &subject,
            "-days",
            "2",
        ]);
        authority
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn openssl(&self, arguments: &[&str]) {
        let status = Command::new("openssl")
            .args(arguments)
            .current_dir(self.directory.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .unwrap();
        assert!(status.success(), "openssl {arguments:?}");
    }

    /// What a server needs that is called `name`.
    fn server(&self, name: &str, days: &str) -> Arc<ServerConfig> {
        std::fs::write(self.path("extensions"), format!("subjectAltName={name}\n")).unwrap();
        self.openssl(&[
            "req",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-keyout",
            "leaf.key",
            "-out",
            "leaf.csr",
            "-subj",
            "/CN=leaf",
        ]);
        self.openssl(&[
            "x509",
            "-req",
            "-in",
            "leaf.csr",
            "-CA",
            "ca.pem",
            "-CAkey",
            "ca.key",
            "-days",
            days,
            "-extfile",
            "extensions",
            "-out",
            "leaf.pem",
        ]);
        let certificate = CertificateDer::from_pem_file(self.path("leaf.pem")).unwrap();
        let key = PrivateKeyDer::from_pem_file(self.path("leaf.key")).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        Arc::new(config)
    }
}

/// Serves each connection with a function until it is dropped.
struct Server {
    port: u16,
    stop: Arc<AtomicBool>,
}

impl Server {
    fn start(serve: impl Fn(TcpStream) + Send + 'static) -> Server {
        let listener = TcpListener::bind("127.0.0.2:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                serve(stream);
            }
        });
        Server { port, stop }
    }

    /// A registry behind TLS that notes what it was asked.
    fn registry(config: Arc<ServerConfig>, seen: Arc<Mutex<Vec<String>>>) -> Server {
        let content = Content::of(TestImage::docker(vec![Layer::new().file("f", "").tar()]));
        Server::start(move |stream| {
            let connection = ServerConnection::new(config.clone()).unwrap();
            let mut stream = BufReader::new(StreamOwned::new(connection, stream));
            if let Ok(Some(request)) = read_request(&mut stream) {
                seen.lock().unwrap().push(request.target.clone());
                let reply = Reply::good(&content, &request);
                let stream = stream.get_mut();
                let _ = stream.write_all(&reply.bytes);
                stream.conn.send_close_notify();
                let _ = stream.flush();
            }
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(("127.0.0.2", self.port));
    }
}

fn pull(port: u16, authority: &Path) -> Result<(), String> {
    let store = TestStore::with(|config| {
        config.registries.authorities = vec![authority.to_owned()];
        config.registries.retry.attempts = 2;
        config.registries.patience.connect = Duration::from_secs(2);
    });
    // Not 127.0.0.1, which with a port is spoken to in the clear (P-02).
    match store.pull(&format!("127.0.0.2:{port}/a:tag")) {
        Ok(_) => Ok(()),
        Err(error) => Err(format!("{:#}", anyhow::Error::new(error))),
    }
}

#[test]
fn tls_with_a_known_authority() {
    let authority = Authority::new();
    let seen = Arc::default();
    let server = Server::registry(authority.server("IP:127.0.0.2", "1"), Arc::clone(&seen));
    pull(server.port, &authority.path("ca.pem")).unwrap();
    assert_eq!(seen.lock().unwrap().len(), 4);
}

#[test]
fn i4_tls_that_proves_nothing_is_refused_before_anything_is_asked() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    for (what, config, words) in [
        ("expired", authority.server("IP:127.0.0.2", "-1"), "Expired"),
        (
            "of another name",
            authority.server("DNS:other.example", "1"),
            "not valid for name",
        ),
        (
            "unknown issuer",
            stranger.server("IP:127.0.0.2", "1"),
            "UnknownIssuer",
        ),
    ] {
        let seen = Arc::default();
        let server = Server::registry(config, Arc::clone(&seen));
        let sentence = pull(server.port, &authority.path("ca.pem")).unwrap_err();
        assert!(
            sentence.contains("TLS handshake failed") && sentence.contains(words),
            "{what}: {sentence}"
        );
        assert!(seen.lock().unwrap().is_empty(), "{what}");
    }
}

#[test]
fn i4_tls_that_is_none_or_cut_off_is_told() {
    let authority = Authority::new();
    type Behaviour = fn(TcpStream);
    let behaviours: [(&str, Behaviour); 4] = [
        ("plain http", |mut stream| {
            drop(stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n"))
        }),
        ("closed in the handshake", drop),
        // An alert: protocol_version, as a server of another age would send.
        ("old version", |mut stream| {
            drop(stream.write_all(&[21, 3, 1, 0, 2, 2, 70]))
        }),
        ("cut server hello", |mut stream| {
            drop(stream.write_all(&[22, 3, 3, 0, 80, 2, 0, 0, 76, 3, 3]))
        }),
    ];
    for (what, behave) in behaviours {
        let server = Server::start(behave);
        let sentence = pull(server.port, &authority.path("ca.pem")).unwrap_err();
        assert!(sentence.contains("TLS handshake failed"), "{what}: {sentence}");
    }
    let silent = Server::start(hold);
    let sentence = pull(silent.port, &authority.path("ca.pem")).unwrap_err();
    assert!(
        sentence.contains("did not finish the TLS handshake"),
        "{sentence}"
    );
}

/// Keeps a connection until its peer goes.
fn hold(stream: TcpStream) {
    let _ = std::io::copy(&mut &stream, &mut std::io::sink());
}
