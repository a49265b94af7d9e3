//! Looks at servers that behave, and at many that do not.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use super::{super::sockets::Sockets, *};
use crate::group::probe::{Probe, Seen};

/// Far longer than anything here takes, but for what is to take too long.
const PATIENCE: Duration = Duration::from_secs(20);

/// A server whose connections are each given to `serve`, on a thread of their own; ends with the test's process.
fn server_at(address: &str, serve: impl Fn(TcpStream) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind(address).unwrap();
    let address = listener.local_addr().unwrap();
    let serve = Arc::new(serve);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let serve = serve.clone();
            thread::spawn(move || serve(stream));
        }
    });
    address
}

fn server(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> SocketAddr {
    server_at("127.0.0.1:0", serve)
}

/// Reads a request's head; gives its lines.
fn request(stream: &mut TcpStream) -> Vec<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|length| length == 1) {
        head.push(byte[0]);
    }
    String::from_utf8(head)
        .unwrap()
        .lines()
        .map(str::to_owned)
        .collect()
}

/// A server with one answer to everything.
fn answering(answer: &'static [u8]) -> SocketAddr {
    server(move |mut stream| {
        request(&mut stream);
        let _ = stream.write_all(answer);
    })
}

fn probe(address: SocketAddr) -> HttpProbe {
    HttpProbe {
        method: "GET".into(),
        tls: None,
        address,
        target: "/".into(),
        headers: Vec::new(),
        good: vec![200..=399],
        body: None,
    }
}

/// What is seen, within a time-out that a good server needs nothing of.
async fn look_for(probe: &HttpProbe, timeout: Duration) -> Seen {
    let sockets = Sockets::new(None);
    let begun = Instant::now();
    let looked = tokio::time::timeout(timeout, look(probe, &sockets)).await;
    let (sight, words) = looked.unwrap_or((Sight::TooLate, None));
    let took = begun.elapsed();
    assert!(took < PATIENCE, "{took:?}");
    Seen { sight, took, words }
}

async fn see(address: SocketAddr) -> Sight {
    look_for(&probe(address), PATIENCE).await.sight
}

/// What is seen of a server that would take for ever.
async fn see_briefly(address: SocketAddr) -> Sight {
    look_for(&probe(address), Duration::from_millis(300)).await.sight
}

fn failed(how: &str) -> Sight {
    Sight::Failed(how.into())
}

#[tokio::test]
async fn h_10_statuses_are_what_the_server_says() {
    for (answer, status) in [
        (&b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"[..], 200),
        (b"HTTP/1.0 204 No Content\r\n\r\n", 204),
        (b"HTTP/1.1 399 Odd\r\n\r\n", 399),
        (
            b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n",
            503,
        ),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", 200),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            200,
        ),
        // Nowhere to go.
        (b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n", 302),
        (b"HTTP/1.1 304 Not Modified\r\nLocation: /x\r\n\r\n", 304),
    ] {
        let seen = see(answering(answer)).await;
        assert_eq!(seen, Sight::Status(status), "{}", String::from_utf8_lossy(answer));
    }
}

#[tokio::test]
async fn the_request_is_what_was_asked_for() {
    let (told, asked) = std::sync::mpsc::channel();
    let address = server(move |mut stream| {
        told.send(request(&mut stream)).unwrap();
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
    });
    let mut wanted = probe(address);
    wanted.method = "HEAD".into();
    wanted.target = "/a?b=c".into();
    wanted.headers = vec![("X-Check".into(), "yes".into()), ("Host".into(), "shop".into())];
    assert_eq!(look_for(&wanted, PATIENCE).await.sight, Sight::Status(200));
    let lines = asked.recv().unwrap();
    assert_eq!(lines[0], "HEAD /a?b=c HTTP/1.1");
    for line in ["x-check: yes", "host: shop", "connection: close"] {
        assert!(
            lines.iter().any(|have| have == line),
            "{line} is not in {lines:?}"
        );
    }
    for (name, value) in [("bad name", "x"), ("x", "a\r\nb: c")] {
        wanted.headers = vec![(name.into(), value.into())];
        let seen = look_for(&wanted, PATIENCE).await.sight;
        assert!(matches!(&seen, Sight::Failed(how) if how.starts_with("the request cannot be made")));
    }
}

#[tokio::test]
async fn redirects_are_followed_within_limits() {
    let address = server(|mut stream| {
        let target = request(&mut stream)[0].split(' ').nth(1).unwrap().to_owned();
        let answer = match target.as_str() {
            "/good" => "HTTP/1.1 302 Found\r\nLocation: /steps/1\r\nContent-Length: 4\r\n\r\nmove".to_owned(),
            "/steps/1" => "HTTP/1.1 307 Go\r\nLocation: 2?x\r\n\r\n".to_owned(),
            "/steps/2?x" => "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_owned(),
            "/bad" => "HTTP/1.1 301 Moved\r\nLocation: /gone\r\n\r\n".to_owned(),
            "/out" => "HTTP/1.1 302 Found\r\nLocation: https://login.example.com/\r\n\r\n".to_owned(),
            "/self" => "HTTP/1.1 302 Found\r\nLocation: /self\r\n\r\n".to_owned(),
            "/dead" => "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\n\r\n".to_owned(),
            "/long" => format!("HTTP/1.1 302 Found\r\nLocation: /{}\r\n\r\n", "x".repeat(20_000)),
            _ => "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_owned(),
        };
        let _ = stream.write_all(answer.as_bytes());
    });
    for (target, sight, words) in [
        ("/good", Sight::Status(200), Some("redirected to /steps/2?x")),
        ("/bad", Sight::Status(404), Some("redirected to /gone")),
        ("/out", Sight::Status(302), Some("a redirect to elsewhere")),
        ("/self", failed("more than 10 redirects"), None),
        ("/dead", failed("connection refused"), Some("redirected to /")),
    ] {
        let mut probe = probe(address);
        probe.target = target.into();
        let seen = look_for(&probe, PATIENCE).await;
        assert_eq!((seen.sight, seen.words.as_deref()), (sight, words), "{target}");
    }
    let mut probe = probe(address);
    probe.target = "/long".into();
    assert!(matches!(look_for(&probe, PATIENCE).await.sight, Sight::Failed(_)));
}

#[tokio::test]
async fn h_03_servers_that_take_their_time_are_too_late() {
    // Accepts and says nothing.
    let hanging = server(|stream| {
        thread::sleep(PATIENCE);
        drop(stream);
    });
    assert_eq!(see_briefly(hanging).await, Sight::TooLate);
    // A byte of the head now and then.
    let dripping = server(|mut stream| {
        for byte in b"HTTP/1.1 200 OK\r\nX: y\r\n\r\n".iter().cycle() {
            if stream.write_all(&[*byte]).is_err() {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
    });
    assert_eq!(see_briefly(dripping).await, Sight::TooLate);
    // The head at once, a byte of the body now and then.
    let dripping = server(|mut stream| {
        request(&mut stream);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n");
        while stream.write_all(b"x").is_ok() {
            thread::sleep(Duration::from_millis(20));
        }
    });
    assert_eq!(see_briefly(dripping).await, Sight::TooLate);
    // Listens and never accepts, with a full queue.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    assert_eq!(see_briefly(listener.local_addr().unwrap()).await, Sight::TooLate);
}

#[tokio::test]
async fn servers_that_break_off_have_failed() {
    let nothing = server(drop);
    let seen = see(nothing).await;
    assert!(
        [
            failed("connection closed before the end of the answer"),
            failed("connection reset"),
            failed("connection closed")
        ]
        .contains(&seen),
        "{seen:?}"
    );
    let resetting = server(|mut stream| {
        request(&mut stream);
        rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
    });
    assert_eq!(see(resetting).await, failed("connection reset"));
    // Half of a head; half of a body.
    for half in [
        &b"HTTP/1.1 200 OK\r\nContent-Le"[..],
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nhalf",
    ] {
        let seen = see(answering(half)).await;
        assert!(
            matches!(seen, Sight::Failed(_)),
            "{} → {seen:?}",
            String::from_utf8_lossy(half)
        );
    }
    // Nobody there.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    assert_eq!(see(address).await, failed("connection refused"));
}

#[tokio::test]
async fn a_server_that_closes_its_half_first_is_good() {
    let half_closed = server(|mut stream| {
        request(&mut stream);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nall of it");
        let _ = stream.shutdown(Shutdown::Write);
        let _ = stream.read(&mut [0; 1]);
    });
    assert_eq!(see(half_closed).await, Sight::Status(200));
}

#[tokio::test]
async fn bodies_without_end_are_read_up_to_a_bound() {
    for head in [
        &b"HTTP/1.1 200 OK\r\n\r\n"[..],
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n",
    ] {
        let endless = server(move |mut stream| {
            request(&mut stream);
            let _ = stream.write_all(head);
            let piece = [b'x'; 1 << 16];
            while stream.write_all(&piece).is_ok() {}
        });
        assert_eq!(see(endless).await, Sight::Status(200));
    }
    let chunks = server(|mut stream| {
        request(&mut stream);
        let _ = stream.write_all(b"HTTP/1.1 500 No\r\nTransfer-Encoding: chunked\r\n\r\n");
        while stream.write_all(b"4\r\nmore\r\n").is_ok() {}
    });
    assert_eq!(see(chunks).await, Sight::Status(500));
}

#[tokio::test]
async fn heads_without_end_and_other_protocols_are_no_answer() {
    let endless = server(|mut stream| {
        request(&mut stream);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n");
        while stream.write_all(b"X-Filler: and more and more\r\n").is_ok() {}
    });
    assert!(matches!(see(endless).await, Sight::Failed(_)));
    for greeting in [
        &b"220 mail.example.com ESMTP ready\r\n"[..],
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"-ERR unknown command 'GET'\r\n",
        b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00",
        b"\0\0\0\0\0\0\0\0",
        b"HTTP/9.9 200 OK\r\n\r\n",
        b"HTTP/1.1 99999 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
    ] {
        let seen = see(answering(greeting)).await;
        assert!(
            matches!(&seen, Sight::Failed(how) if !how.is_empty()),
            "{} → {seen:?}",
            String::from_utf8_lossy(greeting)
        );
    }
}

#[tokio::test]
async fn h_12_a_server_on_ipv6_alone_is_found_where_it_is_looked_for() {
    let six = server_at("[::1]:0", |mut stream| {
        let lines = request(&mut stream);
        let host = lines.iter().any(|line| line.starts_with("host: [::1]:"));
        let _ = stream.write_all(match host {
            true => b"HTTP/1.1 200 OK\r\n\r\n",
            false => b"HTTP/1.1 400 No\r\n\r\n",
        });
    });
    assert_eq!(see(six).await, Sight::Status(200));
    let four = SocketAddr::new("127.0.0.1".parse().unwrap(), six.port());
    assert_eq!(see(four).await, failed("connection refused"));
}

#[tokio::test]
async fn expected_statuses_and_bodies() {
    let address = answering(b"HTTP/1.1 503 No\r\n\r\n{\"status\": \"draining\"}");
    let mut wanted = probe(address);
    wanted.good = vec![503..=503];
    for (body, sight) in [
        ("draining", Sight::Status(503)),
        ("", Sight::Status(503)),
        ("well", Sight::OddBody(503)),
    ] {
        wanted.body = Some(body.into());
        assert_eq!(look_for(&wanted, PATIENCE).await.sight, sight, "{body}");
    }
    assert_eq!(
        Probe::Http(Box::new(wanted)).judge(&Sight::Status(503)),
        crate::group::probe::Outcome::Good
    );
}

mod tls {
    use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};

    use super::*;

    /// Answers over TLS with a certificate of an authority that nobody here trusts.
    fn secure() -> SocketAddr {
        let file = |name| format!("{}/tests/fixtures/tls/{name}", env!("CARGO_MANIFEST_DIR"));
        let chain: Vec<_> = CertificateDer::pem_file_iter(file("agent-by-name.pem"))
            .unwrap()
            .collect::<Result<_, _>>()
            .unwrap();
        let key = PrivateKeyDer::from_pem_file(file("agent-by-name.key")).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        let config = Arc::new(config);
        server(move |mut stream| {
            let mut connection = rustls::ServerConnection::new(config.clone()).unwrap();
            let mut stream = rustls::Stream::new(&mut connection, &mut stream);
            let mut head = [0; 1024];
            if stream.read(&mut head).is_ok() {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
                stream.conn.send_close_notify();
                let _ = stream.flush();
            }
        })
    }

    fn over_tls(address: SocketAddr, tls: Tls) -> HttpProbe {
        HttpProbe {
            tls: Some(tls),
            ..probe(address)
        }
    }

    #[tokio::test]
    async fn h_10_certificates_are_verified_only_on_request() {
        let address = secure();
        let seen = look_for(&over_tls(address, Tls::Anyone), PATIENCE).await;
        assert_eq!(seen.sight, Sight::Status(200));
        let seen = look_for(&over_tls(address, Tls::Named("agent.test".into())), PATIENCE).await;
        assert!(
            matches!(&seen.sight, Sight::Failed(how) if how.starts_with("TLS: invalid peer certificate")),
            "{seen:?}"
        );
        let seen = look_for(&over_tls(address, Tls::Named("not a name".into())), PATIENCE).await;
        assert!(
            matches!(&seen.sight, Sight::Failed(how) if how.contains("no name")),
            "{seen:?}"
        );
    }

    #[tokio::test]
    async fn garbage_instead_of_tls_and_tls_instead_of_plain_text() {
        for garbage in [
            &b"HTTP/1.1 400 Bad Request\r\n\r\n"[..],
            b"\x16\x03\x03\xff\xff",
            b"\x15\x03\x03\x00\x02\x02\x28",
            b"",
        ] {
            let address = server(move |mut stream| {
                let _ = stream.read(&mut [0; 16]);
                let _ = stream.write_all(garbage);
            });
            let seen = look_for(&over_tls(address, Tls::Anyone), PATIENCE).await.sight;
            assert!(
                matches!(&seen, Sight::Failed(how) if how.starts_with("TLS: ")),
                "{garbage:?} → {seen:?}"
            );
        }
        let hanging = server(|stream| {
            thread::sleep(PATIENCE);
            drop(stream);
        });
        let brief = Duration::from_millis(300);
        let seen = look_for(&over_tls(hanging, Tls::Anyone), brief).await;
        assert_eq!(seen.sight, Sight::TooLate);
        assert!(matches!(see(secure()).await, Sight::Failed(_)));
    }
}
