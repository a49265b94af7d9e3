//! Registry faults, each at every request of a pull, once and for ever (I4). A pull completes or fails by its deadline,
//! nothing half-done is visible, and afterwards the same store pulls from a good registry.

use std::{
    sync::{
        Arc, LazyLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use podling::image::{Patience, PullOptions, Retry};

use super::{
    build::{Layer, TestImage},
    fake::{Content, End, FakeRegistry, PARTS, Part, Reply, Request},
    pull::{TestStore, block_on, inside},
};

/// What a pull comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Well,
    /// It fails, with these words.
    Fails(&'static str),
    /// Either: it depends on which part it is.
    Either,
}
use Outcome::{Either, Fails, Well};

const ATTEMPTS: u32 = 3;
const PATIENCE: Duration = Duration::from_millis(800);

/// Not compressible, and larger than any buffer on the way.
fn content() -> Content {
    static CONTENT: LazyLock<Content> = LazyLock::new(make_content);
    CONTENT.clone()
}

fn make_content() -> Content {
    let mut random = 88_172_645_463_325_252u64;
    let data: Vec<u8> = std::iter::repeat_with(|| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random as u8
    })
    .take(200_000)
    .collect();
    Content::of(TestImage::docker(vec![Layer::new().file("data", &data).tar()]))
}

fn store() -> TestStore {
    TestStore::with(|config| {
        config.registries.patience = Patience {
            connect: PATIENCE,
            header: PATIENCE,
            stall: PATIENCE,
        };
        config.registries.retry = Retry {
            attempts: ATTEMPTS,
            first_delay: Duration::from_millis(2),
            max_delay: Duration::from_millis(50),
        };
    })
}

/// A fault makes a reply out of the good one.
type Fault = fn(&Content, &Request, Reply) -> Reply;

fn fault_at_every_part(name: &str, fault: Fault, once: Outcome, always: Outcome) {
    std::thread::scope(|scope| {
        for part in PARTS {
            for (times, outcome) in [(1, once), (usize::MAX, always)] {
                scope.spawn(move || fault_at(name, fault, part, times, outcome));
            }
        }
    });
}

fn fault_at(name: &str, fault: Fault, part: Part, times: usize, outcome: Outcome) {
    let content = content();
    let fired = Arc::new(AtomicUsize::new(0));
    let (count, served) = (fired.clone(), content.clone());
    let registry = FakeRegistry::start(move |request, _| {
        let good = Reply::good(&served, request);
        let hit = request.part(&served) == Some(part) || request.target.starts_with("/redirected");
        if hit && count.fetch_add(1, Ordering::SeqCst) < times {
            return fault(&served, request, good);
        }
        good
    });
    let store = store();
    let reference = format!("{}/a:tag", registry.address);
    let deadline = Duration::from_secs(40);
    let pulled = block_on(async {
        let reference = reference.parse().unwrap();
        let options = PullOptions::default();
        let pull = store.store.resolve_and_pull(&reference, &options);
        tokio::time::timeout(deadline, pull).await
    });
    let context = format!("{name} at {part:?}, {times} times");
    let pulled = pulled.unwrap_or_else(|_| panic!("{context}: neither came to an end"));
    assert!(
        fired.load(Ordering::SeqCst) > 0,
        "{context}: the fault never happened"
    );
    match (pulled, outcome) {
        (Ok(image), Well | Either) => {
            let rootfs = image.rootfs(None).unwrap();
            assert_eq!(
                std::fs::metadata(inside(&rootfs).join("data")).unwrap().len(),
                200_000,
                "{context}"
            );
        }
        (Err(error), Fails(words)) => {
            let sentence = format!("{:#}", anyhow::Error::new(error));
            assert!(sentence.contains(words), "{context}: {sentence}");
            nothing_is_visible(&store, &context);
        }
        (Err(_), Either) => nothing_is_visible(&store, &context),
        (Ok(_), Fails(_)) => panic!("{context}: the pull completed"),
        (Err(error), Well) => panic!("{context}: {:#}", anyhow::Error::new(error)),
    }
    drop(registry);
    let good = FakeRegistry::start(move |request, _| Reply::good(&content, request));
    let pulled = store.pull(&format!("{}/a:tag", good.address));
    assert!(
        pulled.is_ok(),
        "{context}: afterwards a good registry was of no use: {pulled:?}"
    );
}

fn nothing_is_visible(store: &TestStore, context: &str) {
    assert_eq!(block_on(store.store.list()).unwrap().len(), 0, "{context}");
    for directory in ["layers", "staging", "images", "refs"] {
        let path = store.directory.path().join("store").join(directory);
        let left = std::fs::read_dir(path).unwrap().count();
        assert_eq!(left, 0, "{context}: something is left in {directory}");
    }
}

/// The body of a good reply, and its head.
fn split(reply: &Reply) -> (String, Vec<u8>) {
    let at = reply
        .bytes
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .unwrap()
        + 4;
    (
        String::from_utf8_lossy(&reply.bytes[..at]).into_owned(),
        reply.bytes[at..].to_vec(),
    )
}

fn cut_body(reply: &Reply, quarters: usize, end: End) -> Reply {
    let (head, body) = split(reply);
    let length = head.len() + body.len() * quarters / 4;
    Reply {
        bytes: reply.bytes[..length].to_vec(),
        end,
    }
}

fn cut_head(reply: &Reply, end: End) -> Reply {
    let (head, _) = split(reply);
    Reply {
        bytes: reply.bytes[..head.len() / 2].to_vec(),
        end,
    }
}

fn with_body(reply: &Reply, change: impl Fn(&mut Vec<u8>)) -> Reply {
    let (_, mut body) = split(reply);
    change(&mut body);
    Reply::ok("application/octet-stream", &body)
}

fn nothing(end: End) -> Reply {
    Reply { bytes: vec![], end }
}

fn redirect(location: &str) -> Reply {
    Reply::status("307 Temporary Redirect", &format!("Location: {location}\n"))
}

macro_rules! faults {
    ($($name:ident: once $once:expr, always $always:expr, $fault:expr;)*) => {
        $(
            #[test]
            fn $name() {
                fault_at_every_part(stringify!($name), $fault, $once, $always);
            }
        )*
        const NAMES: &[&str] = &[$(stringify!($name)),*];
    };
}

const STALLS: Outcome = Fails("within 800ms");
const BROKE: Outcome = Fails("broke");
const DAMAGED: Outcome = Either;

faults! {
    // Connections.
    close_after_request: once Well, always BROKE, |_, _, _| nothing(End::Close);
    reset_after_request: once Well, always BROKE, |_, _, _| nothing(End::Reset);
    stall_after_request: once Well, always STALLS, |_, _, _| nothing(End::Stall);
    close_in_headers: once Well, always BROKE, |_, _, good| cut_head(&good, End::Close);
    reset_in_headers: once Well, always BROKE, |_, _, good| cut_head(&good, End::Reset);
    stall_in_headers: once Well, always STALLS, |_, _, good| cut_head(&good, End::Stall);
    close_before_body: once Well, always BROKE, |_, _, good| cut_body(&good, 0, End::Close);
    close_in_first_quarter: once Well, always Either, |_, _, good| cut_body(&good, 1, End::Close);
    close_in_half: once Well, always Either, |_, _, good| cut_body(&good, 2, End::Close);
    close_in_last_quarter: once Well, always Either, |_, _, good| cut_body(&good, 3, End::Close);
    reset_before_body: once Well, always BROKE, |_, _, good| cut_body(&good, 0, End::Reset);
    reset_in_first_quarter: once Well, always Either, |_, _, good| cut_body(&good, 1, End::Reset);
    reset_in_half: once Well, always Either, |_, _, good| cut_body(&good, 2, End::Reset);
    reset_in_last_quarter: once Well, always Either, |_, _, good| cut_body(&good, 3, End::Reset);
    stall_before_body: once Well, always STALLS, |_, _, good| cut_body(&good, 0, End::Stall);
    stall_in_first_quarter: once Well, always Either, |_, _, good| cut_body(&good, 1, End::Stall);
    stall_in_half: once Well, always Either, |_, _, good| cut_body(&good, 2, End::Stall);
    stall_in_last_quarter: once Well, always Either, |_, _, good| cut_body(&good, 3, End::Stall);
    close_after_each_answer: once Well, always Well, |_, _, good| good.end(End::Close);
    close_before_the_last_byte: once Well, always Either, |_, _, good| {
        let length = good.bytes.len() - 1;
        Reply { bytes: good.bytes[..length].to_vec(), end: End::Close }
    };

    // What is not HTTP, or only nearly.
    greeting_of_another_protocol: once Fails("broke"), always BROKE, |_, _, _| {
        Reply { bytes: b"SSH-2.0-OpenSSH_9.2\r\n".to_vec(), end: End::Close }
    };
    http_0_9: once Fails("broke"), always BROKE, |_, _, _| {
        Reply { bytes: b"<html>hello</html>".to_vec(), end: End::Close }
    };
    http_2: once Fails("broke"), always BROKE, |_, _, _| {
        Reply { bytes: b"\x00\x00\x00\x04\x00\x00\x00\x00\x00".to_vec(), end: End::Close }
    };
    version_9: once Fails("broke"), always BROKE, |_, _, _| Reply::new("HTTP/9.9 200 OK\nContent-Length: 0\n\n", b"");
    status_of_two_digits: once Fails("broke"), always BROKE, |_, _, _| {
        Reply::new("HTTP/1.1 20 OK\nContent-Length: 0\n\n", b"")
    };
    headers_without_end: once Fails("broke"), always BROKE, |_, _, _| {
        let headers: String = (0..20_000).map(|n| format!("X-Header-{n}: value\r\n")).collect();
        Reply { bytes: format!("HTTP/1.1 200 OK\r\n{headers}").into_bytes(), end: End::Close }
    };
    header_of_a_megabyte: once Fails("broke"), always BROKE, |_, _, _| {
        let header = "x".repeat(1 << 20);
        Reply::new(&format!("HTTP/1.1 200 OK\nX-Long: {header}\nContent-Length: 0\n\n"), b"").end(End::Close)
    };
    header_with_nul: once Fails("broke"), always BROKE, |_, _, _| {
        Reply::new("HTTP/1.1 200 OK\nX-Nul: a\0b\nContent-Length: 0\n\n", b"")
    };
    length_negative: once Fails("broke"), always BROKE, |_, _, _| {
        Reply::new("HTTP/1.1 200 OK\nContent-Length: -1\n\n", b"")
    };
    length_twice_different: once Fails("broke"), always BROKE, |_, _, _| {
        Reply::new("HTTP/1.1 200 OK\nContent-Length: 1\nContent-Length: 2\n\n", b"xx")
    };
    chunk_of_no_size: once Either, always BROKE, |_, _, _| {
        Reply::new("HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\nzz\nxx\n", b"").end(End::Close)
    };
    continue_first: once Well, always Well, |_, _, good| {
        Reply { bytes: [&b"HTTP/1.1 100 Continue\r\n\r\n"[..], &good.bytes].concat(), end: End::Keep }
    };

    // Lengths.
    length_missing: once Well, always Well, |_, _, good| {
        Reply::new("HTTP/1.1 200 OK\n\n", &split(&good).1).end(End::Close)
    };
    length_missing_and_cut: once Either, always Either, |_, _, good| {
        let body = split(&good).1;
        Reply::new("HTTP/1.1 200 OK\n\n", &body[..body.len() / 2]).end(End::Close)
    };
    chunked: once Well, always Well, |_, _, good| {
        let body = split(&good).1;
        let mut bytes = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n", body.len()).into_bytes();
        bytes.extend(body);
        bytes.extend_from_slice(b"\r\n0\r\n\r\n");
        Reply { bytes, end: End::Keep }
    };
    chunked_and_cut: once Well, always Either, |_, _, good| {
        let body = split(&good).1;
        let mut bytes = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n", body.len()).into_bytes();
        bytes.extend(&body[..body.len() / 2]);
        Reply { bytes, end: End::Close }
    };
    length_too_small: once DAMAGED, always DAMAGED, |_, _, good| {
        let body = split(&good).1;
        Reply::ok("application/octet-stream", &body[..body.len() - 1])
    };
    length_too_large: once Either, always Either, |_, _, good| {
        let body = split(&good).1;
        Reply::new(&format!("HTTP/1.1 200 OK\nContent-Length: {}\n\n", body.len() + 1), &body).end(End::Close)
    };
    more_than_was_said: once Well, always Well, |_, _, good| {
        Reply { bytes: [&good.bytes[..], b"more"].concat(), end: End::Close }
    };
    body_longer_than_the_descriptor: once DAMAGED, always DAMAGED, |_, _, good| {
        with_body(&good, |body| body.extend_from_slice(b"   "))
    };
    body_without_end: once Either, always Either, |_, _, _| {
        Reply::new("HTTP/1.1 200 OK\n\n", &vec![b' '; 9 << 20]).end(End::Close)
    };

    // Content that is not what it should be.
    body_empty: once DAMAGED, always Fails(""), |_, _, _| Reply::ok("application/json", b"");
    body_of_another_kind: once DAMAGED, always Fails(""), |_, _, _| Reply::ok("text/html", b"<html>login</html>");
    body_is_json_null: once DAMAGED, always Fails(""), |_, _, _| Reply::ok("application/json", b"null");
    body_with_a_flipped_bit: once DAMAGED, always Fails(""), |_, _, good| {
        with_body(&good, |body| {
            let middle = body.len() / 2;
            body[middle] ^= 0x20;
        })
    };
    body_of_another_blob: once DAMAGED, always Either, |content, _, _| Reply::ok("application/json", &content.config);
    body_of_the_manifest: once Either, always Either, |content, _, _| {
        Reply::ok(content.image.media_type, &content.image.manifest)
    };
    body_gzipped_for_the_transfer: once Fails("encoded"), always Fails("encoded"), |_, _, good| {
        let body = split(&good).1;
        Reply::new(
            &format!("HTTP/1.1 200 OK\nContent-Encoding: gzip\nContent-Length: {}\n\n", body.len()),
            &body,
        )
    };

    // Statuses.
    status_204: once Either, always Fails(""), |_, _, _| Reply::new("HTTP/1.1 204 No Content\n\n", b"");
    status_206_unasked: once Either, always Either, |_, _, good| {
        Reply::new(
            &format!(
                "HTTP/1.1 206 Partial Content\nContent-Range: bytes 7-9/10\nContent-Length: {}\n\n",
                split(&good).1.len()
            ),
            &split(&good).1,
        )
    };
    status_304: once Fails("304"), always Fails("304"), |_, _, _| Reply::new("HTTP/1.1 304 Not Modified\n\n", b"");
    status_400: once Fails("400"), always Fails("400"), |_, _, _| Reply::status("400 Bad Request", "");
    status_403: once Fails("403"), always Fails("403"), |_, _, _| Reply::status("403 Forbidden", "");
    status_404: once Fails("404"), always Fails("404"), |_, _, _| Reply::status("404 Not Found", "");
    status_404_with_words: once Fails("manifest unknown"), always Fails("manifest unknown"), |_, _, _| {
        let body = br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#;
        Reply::new(&format!("HTTP/1.1 404 Not Found\nContent-Length: {}\n\n", body.len()), body)
    };
    status_405: once Fails("405"), always Fails("405"), |_, _, _| Reply::status("405 Method Not Allowed", "");
    status_408: once Well, always Fails("408"), |_, _, _| Reply::status("408 Request Timeout", "");
    status_410: once Fails("410"), always Fails("410"), |_, _, _| Reply::status("410 Gone", "");
    status_416: once Well, always Fails("416"), |_, _, _| Reply::status("416 Range Not Satisfiable", "");
    status_451: once Fails("451"), always Fails("451"), |_, _, _| Reply::status("451 Unavailable For Legal Reasons", "");
    status_429: once Well, always Fails("429"), |_, _, _| Reply::status("429 Too Many Requests", "");
    status_429_now: once Well, always Fails("429"), |_, _, _| {
        Reply::status("429 Too Many Requests", "Retry-After: 0\n")
    };
    status_429_in_the_past: once Well, always Fails("429"), |_, _, _| {
        Reply::status("429 Too Many Requests", "Retry-After: Sun, 06 Nov 1994 08:49:37 GMT\n")
    };
    status_429_tomorrow: once Fails("429"), always Fails("429"), |_, _, _| {
        Reply::status("429 Too Many Requests", "Retry-After: 86400\n")
    };
    status_429_garbage: once Well, always Fails("429"), |_, _, _| {
        Reply::status("429 Too Many Requests", "Retry-After: soon\n")
    };
    status_500: once Well, always Fails("500"), |_, _, _| Reply::status("500 Internal Server Error", "");
    status_502: once Well, always Fails("502"), |_, _, _| Reply::status("502 Bad Gateway", "");
    status_503: once Well, always Fails("503"), |_, _, _| Reply::status("503 Service Unavailable", "Retry-After: 0\n");
    status_504: once Well, always Fails("504"), |_, _, _| Reply::status("504 Gateway Timeout", "");
    status_500_with_an_endless_body: once Well, always Fails("500"), |_, _, _| {
        Reply::new("HTTP/1.1 500 Oops\n\n", &vec![b'x'; 1 << 20]).end(End::Close)
    };

    // Redirects.
    redirect_to_itself: once Well, always Fails("redirects more than"), |_, request, _| redirect(&request.target);
    redirect_once: once Well, always Either, |_, request, _| {
        redirect(&format!("{}?again", request.target))
    };
    redirect_nowhere: once Fails("without saying where"), always Fails("without saying where"), |_, _, _| {
        Reply::status("302 Found", "")
    };
    redirect_to_a_file: once Fails("unusable place"), always Fails("unusable place"), |_, _, _| {
        redirect("file:///etc/passwd")
    };
    redirect_to_ftp: once Fails("unusable place"), always Fails("unusable place"), |_, _, _| redirect("ftp://x/y");
    redirect_to_garbage: once Fails("unusable place"), always Fails("unusable place"), |_, _, _| redirect("://");
    redirect_to_a_dead_port: once Well, always Fails("cannot connect"), |_, _, _| redirect("http://127.0.0.1:1/x");
    redirect_to_nobody: once Fails(""), always Fails(""), |_, _, _| redirect("http://127.0.0.1:99999/x");

    // Authentication.
    status_401_without_challenge: once Fails("not supported"), always Fails("not supported"), |_, _, _| {
        Reply::status("401 Unauthorized", "")
    };
    status_401_basic: once Fails("wants credentials"), always Fails("wants credentials"), |_, _, _| {
        Reply::status("401 Unauthorized", "WWW-Authenticate: Basic realm=\"x\"\n")
    };
    status_401_unknown: once Fails("Negotiate"), always Fails("Negotiate"), |_, _, _| {
        Reply::status("401 Unauthorized", "WWW-Authenticate: Negotiate\n")
    };
    status_401_realm_is_a_file: once Fails("token service"), always Fails("token service"), |_, _, _| {
        Reply::status("401 Unauthorized", "WWW-Authenticate: Bearer realm=\"file:///etc/passwd\"\n")
    };
    status_401_realm_is_dead: once Well, always Fails("token service"), |_, _, _| {
        Reply::status("401 Unauthorized", "WWW-Authenticate: Bearer realm=\"http://127.0.0.1:1/token\"\n")
    };
}

#[test]
fn i4_the_table_names_at_least_60_behaviours() {
    let mut names = NAMES.to_vec();
    names.sort_unstable();
    names.dedup();
    assert!(names.len() >= 60, "{}", names.len());
}
