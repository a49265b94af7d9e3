//! The session with an agent that speaks https: the scripted agent behind a door of TLS.

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::WebPkiClientVerifier,
};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::{tests::*, *};

fn fixture(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests/fixtures/tls", name]
        .iter()
        .collect()
}

/// Opens a door that shows this certificate and leads to the agent.
async fn door(agent: &Agent, name: &str, wants_client: bool) -> SocketAddr {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let certificate = CertificateDer::from_pem_file(fixture(&format!("{name}.pem"))).expect("certificate");
    let key = PrivateKeyDer::from_pem_file(fixture(&format!("{name}.key"))).expect("key");
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .expect("versions");
    let builder = if wants_client {
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_file(fixture("authority.pem")).expect("authority"))
            .expect("root");
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        builder.with_client_cert_verifier(verifier.build().expect("verifier"))
    } else {
        builder.with_no_client_auth()
    };
    let config = builder.with_single_cert(vec![certificate], key).expect("pair");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let behind = agent.address();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let mut outer = acceptor.accept(stream).await?;
                let mut inner = TcpStream::connect(behind).await?;
                tokio::io::copy_bidirectional(&mut outer, &mut inner).await
            });
        }
    });
    address
}

/// What an agent behind that door puts into the environment.
fn environment(agent: &Agent, door: SocketAddr, more: &[(&str, &str)]) -> Environment {
    let pid = format!("slave(3)@{door}");
    let mut all = vec![("MESOS_SLAVE_PID", pid.as_str()), ("LIBPROCESS_SSL_ENABLED", "1")];
    all.extend(more);
    agent.environment(&all)
}

fn impatient() -> Config {
    Config {
        registration_timeout: Duration::from_millis(300),
        ..quick()
    }
}

/// It subscribes, and calls come through.
async fn works(environment: &Environment, config: &Config, agent: &Agent) {
    let mut shell = Shell::start(environment, config);
    let ((_events, mut calls, _), ()) = tokio::join!(agent.subscription(), shell.subscribe());
    assert_eq!(shell.event().await, wire::event::Type::Subscribed);
    shell.calls.update(status("t"));
    assert_eq!(calls.request().await.call.r#type(), wire::call::Type::Update);
}

async fn fails(environment: &Environment, config: &Config) -> String {
    Shell::start(environment, config).failure().await
}

#[tokio::test]
async fn an_agent_is_known_by_its_address() {
    let agent = Agent::listen().await;
    let door = door(&agent, "agent-by-address", false).await;
    let authority = fixture("authority.pem");
    let named = environment(
        &agent,
        door,
        &[("LIBPROCESS_SSL_CA_FILE", authority.to_str().expect("text"))],
    );
    works(&named, &quick(), &agent).await;
    // The operator's word counts more than the environment's.
    let stranger = fixture("stranger.pem");
    let overruled = environment(&agent, door, &[("SSL_CA_FILE", stranger.to_str().expect("text"))]);
    let config = Config {
        ca_file: Some(authority),
        ..quick()
    };
    works(&overruled, &config, &agent).await;
}

#[tokio::test]
async fn an_agent_may_be_known_by_a_name_the_operator_gives() {
    let agent = Agent::listen().await;
    let door = door(&agent, "agent-by-name", false).await;
    let environment = environment(&agent, door, &[]);
    let trusting = |agent_name: Option<&str>| Config {
        ca_file: Some(fixture("authority.pem")),
        agent_name: agent_name.map(str::to_owned),
        ..impatient()
    };
    works(&environment, &trusting(Some("agent.example")), &agent).await;
    for name in [None, Some("other.example")] {
        let text = fails(&environment, &trusting(name)).await;
        assert!(text.contains("TLS") && text.contains("certificate"), "{text}");
    }
}

#[tokio::test]
async fn a_stranger_is_not_taken_for_the_agent() {
    let agent = Agent::listen().await;
    let door = door(&agent, "agent-by-address", false).await;
    let config = Config {
        ca_file: Some(fixture("stranger.pem")),
        ..impatient()
    };
    let text = fails(&environment(&agent, door, &[]), &config).await;
    assert!(text.contains("certificate"), "{text}");
    // Unless nobody wants to know.
    let careless = environment(&agent, door, &[("LIBPROCESS_SSL_VERIFY_SERVER_CERT", "0")]);
    works(&careless, &config, &agent).await;
}

#[tokio::test]
async fn we_show_a_certificate_to_an_agent_that_asks() {
    let agent = Agent::listen().await;
    let door = door(&agent, "agent-by-address", true).await;
    let (authority, client, key) = (
        fixture("authority.pem"),
        fixture("client.pem"),
        fixture("client.key"),
    );
    let text = |path: &PathBuf| path.to_str().expect("text").to_owned();
    let (authority, client, key) = (text(&authority), text(&client), text(&key));
    let with = environment(
        &agent,
        door,
        &[
            ("LIBPROCESS_SSL_CA_FILE", &authority),
            ("LIBPROCESS_SSL_CERT_FILE", &client),
            ("LIBPROCESS_SSL_KEY_FILE", &key),
        ],
    );
    works(&with, &quick(), &agent).await;
}

#[tokio::test]
async fn what_is_wrong_with_the_files_is_told_at_once() {
    let agent = Agent::listen().await;
    let missing = environment(&agent, agent.address(), &[("SSL_CA_FILE", "/nonexistent/ca.pem")]);
    let error = Session::start(&missing, &quick())
        .expect_err("a refusal")
        .to_string();
    assert!(error.contains("/nonexistent/ca.pem"), "{error}");
    let empty = tempfile::NamedTempFile::new().expect("file");
    let empty = empty.path().to_str().expect("text").to_owned();
    let error = Session::start(
        &environment(&agent, agent.address(), &[("SSL_CA_FILE", &empty)]),
        &quick(),
    )
    .expect_err("a refusal")
    .to_string();
    assert!(error.contains("no authority"), "{error}");
}

#[tokio::test]
async fn an_agent_without_tls_is_told_as_such() {
    let agent = Agent::listen().await;
    let config = Config {
        ca_file: Some(fixture("authority.pem")),
        ..impatient()
    };
    let plain = environment(&agent, agent.address(), &[]);
    let answer = async {
        loop {
            let mut peer = agent.accept().await;
            peer.refuse("400 Bad Request", "").await;
        }
    };
    tokio::select! {
        text = fails(&plain, &config) => assert!(text.contains("TLS"), "{text}"),
        () = answer => {}
    }
}
