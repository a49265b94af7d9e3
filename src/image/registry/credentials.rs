//! Who we are to a registry: docker's `config.json` in its present and old form, and credential helpers.

use std::{
    collections::HashMap,
    io::Read as _,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::base::entrusted;

const MAX_CONFIG: usize = 1 << 20;
const MAX_HELPER_OUTPUT: u64 = 64 << 10;

/// What is shown to a registry or its token service.
#[derive(Clone, PartialEq, Eq)]
pub enum Credential {
    Password {
        user: String,
        password: String,
    },
    /// An OAuth2 refresh token, exchanged at the token service.
    IdentityToken(String),
    /// A ready token for the registry itself.
    RegistryToken(String),
}

/// Secrets do not belong in logs.
impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Credential::Password { .. } => "Password(…)",
            Credential::IdentityToken(_) => "IdentityToken(…)",
            Credential::RegistryToken(_) => "RegistryToken(…)",
        })
    }
}

/// All credentials of one docker configuration.
#[derive(Debug, Clone, Default)]
pub struct Credentials {
    auths: HashMap<String, Credential>,
    helpers: HashMap<String, String>,
    default_helper: Option<String>,
    patience: Option<Duration>,
}

#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    #[error("the docker configuration is larger than {MAX_CONFIG} bytes")]
    TooLarge,
    #[error("{} cannot be read", .path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{}", .path.display())]
    File {
        path: PathBuf,
        #[source]
        source: Box<CredentialError>,
    },
    /// Without the reader's own words, which may quote the secret.
    #[error("the docker configuration is not valid JSON at line {line}, column {column}")]
    Json { line: usize, column: usize },
    #[error("the credentials for {0:?} in the docker configuration are malformed")]
    Entry(String),
    #[error("credential helper {0:?} is not a plain program name")]
    HelperName(String),
    #[error("credential helper docker-credential-{name} cannot be run")]
    HelperRun {
        name: String,
        #[source]
        source: std::io::Error,
    },
    #[error("credential helper docker-credential-{name} did not answer within {patience:?}")]
    HelperTimeout { name: String, patience: Duration },
    #[error("credential helper docker-credential-{name} failed")]
    HelperFailed { name: String },
    #[error("credential helper docker-credential-{name} answered with something that is no credential")]
    HelperAnswer { name: String },
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct ConfigFile {
    auths: Option<HashMap<String, AuthEntry>>,
    #[serde(rename = "credHelpers")]
    cred_helpers: Option<HashMap<String, String>>,
    #[serde(rename = "credsStore")]
    creds_store: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct AuthEntry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
    registrytoken: Option<String>,
}

#[derive(Deserialize)]
struct HelperAnswer {
    #[serde(rename = "Username")]
    username: String,
    #[serde(rename = "Secret")]
    secret: String,
}

impl Credentials {
    /// Reads a `config.json`, or an old `.dockercfg`, which is what `auths` holds alone.
    pub fn parse(text: &[u8]) -> Result<Credentials, CredentialError> {
        if text.len() > MAX_CONFIG {
            return Err(CredentialError::TooLarge);
        }
        let json = |error: serde_json::Error| CredentialError::Json {
            line: error.line(),
            column: error.column(),
        };
        let keys: HashMap<String, serde::de::IgnoredAny> = serde_json::from_slice(text).map_err(json)?;
        let is_new = keys.is_empty()
            || ["auths", "credHelpers", "credsStore"]
                .iter()
                .any(|key| keys.contains_key(*key));
        let looks_old = keys
            .keys()
            .all(|key| key.contains(['.', ':', '/']) || key == "localhost");
        let file: ConfigFile = if is_new || !looks_old {
            serde_json::from_slice(text).map_err(json)?
        } else {
            ConfigFile {
                auths: Some(serde_json::from_slice(text).map_err(json)?),
                ..ConfigFile::default()
            }
        };
        let mut auths = HashMap::new();
        for (server, entry) in file.auths.unwrap_or_default() {
            if let Some(credential) = entry.credential(&server)? {
                auths.insert(registry_key(&server), credential);
            }
        }
        let helpers = file
            .cred_helpers
            .unwrap_or_default()
            .into_iter()
            .map(|(server, helper)| (registry_key(&server), helper))
            .collect();
        Ok(Credentials {
            auths,
            helpers,
            default_helper: file.creds_store.filter(|name| !name.is_empty()),
            patience: None,
        })
    }

    /// Reads a configuration file.
    pub fn load(path: &Path) -> Result<Credentials, CredentialError> {
        let path = path.to_owned();
        let text = entrusted::open(&path).and_then(|file| {
            let mut text = Vec::new();
            file.take(MAX_CONFIG as u64 + 1).read_to_end(&mut text)?;
            Ok(text)
        });
        match text {
            Ok(text) => Credentials::parse(&text).map_err(|error| CredentialError::File {
                path,
                source: Box::new(error),
            }),
            Err(source) => Err(CredentialError::Read { path, source }),
        }
    }

    /// How long a helper may take.
    pub fn with_helper_patience(self, patience: Duration) -> Credentials {
        Credentials {
            patience: Some(patience),
            ..self
        }
    }

    pub fn is_empty(&self) -> bool {
        self.auths.is_empty() && self.helpers.is_empty() && self.default_helper.is_none()
    }

    /// What to show to a registry. A helper named for the registry wins, as docker has it.
    pub async fn for_registry(&self, registry: &str) -> Result<Option<Credential>, CredentialError> {
        let key = registry_key(registry);
        if let Some(helper) = self.helpers.get(&key) {
            return self.ask_helper(helper, &key).await;
        }
        if let Some(credential) = self.auths.get(&key) {
            return Ok(Some(credential.clone()));
        }
        match &self.default_helper {
            Some(helper) => self.ask_helper(helper, &key).await,
            None => Ok(None),
        }
    }

    async fn ask_helper(&self, name: &str, registry: &str) -> Result<Option<Credential>, CredentialError> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        if name.is_empty() || name.len() > 100 || !name.bytes().all(plain) {
            return Err(CredentialError::HelperName(name.chars().take(100).collect()));
        }
        let patience = self.patience.unwrap_or(Duration::from_secs(15));
        // The hub is known to helpers by its oldest name.
        let server = match registry {
            "docker.io" => "https://index.docker.io/v1/",
            other => other,
        };
        let output = tokio::time::timeout(patience, run_helper(name, server))
            .await
            .map_err(|_| CredentialError::HelperTimeout {
                name: name.to_owned(),
                patience,
            })?
            .map_err(|source| CredentialError::HelperRun {
                name: name.to_owned(),
                source,
            })?;
        if !output.success {
            // "Not found" is an answer, and the only one helpers have for it is a sentence.
            let not_found = String::from_utf8_lossy(&output.stdout).contains("credentials not found");
            return match not_found {
                true => Ok(None),
                false => Err(CredentialError::HelperFailed {
                    name: name.to_owned(),
                }),
            };
        }
        let answer: HelperAnswer =
            serde_json::from_slice(&output.stdout).map_err(|_| CredentialError::HelperAnswer {
                name: name.to_owned(),
            })?;
        Ok(Some(match answer.username.as_str() {
            "<token>" => Credential::IdentityToken(answer.secret),
            _ => Credential::Password {
                user: answer.username,
                password: answer.secret,
            },
        }))
    }
}

impl AuthEntry {
    fn credential(self, server: &str) -> Result<Option<Credential>, CredentialError> {
        let malformed = || CredentialError::Entry(server.chars().take(200).collect());
        let given = |text: Option<String>| text.filter(|text| !text.is_empty());
        if let Some(token) = given(self.registrytoken) {
            return Ok(Some(Credential::RegistryToken(token)));
        }
        if let Some(token) = given(self.identitytoken) {
            return Ok(Some(Credential::IdentityToken(token)));
        }
        if let Some(auth) = given(self.auth) {
            let decoded = BASE64_STANDARD.decode(auth.trim()).map_err(|_| malformed())?;
            let text = String::from_utf8(decoded).map_err(|_| malformed())?;
            let (user, password) = text
                .trim_end_matches('\0')
                .split_once(':')
                .ok_or_else(malformed)?;
            return Ok(Some(Credential::Password {
                user: user.to_owned(),
                password: password.to_owned(),
            }));
        }
        match (given(self.username), given(self.password)) {
            (Some(user), Some(password)) => Ok(Some(Credential::Password { user, password })),
            _ => Ok(None),
        }
    }
}

/// The name a registry goes by in a configuration: host and port, without scheme and path.
fn registry_key(server: &str) -> String {
    let server = server
        .strip_prefix("https://")
        .or_else(|| server.strip_prefix("http://"))
        .unwrap_or(server);
    let host = server.split('/').next().unwrap_or_default().to_ascii_lowercase();
    match host.as_str() {
        "index.docker.io" | "registry-1.docker.io" => "docker.io".to_owned(),
        _ => host,
    }
}

struct HelperOutput {
    success: bool,
    stdout: Vec<u8>,
}

/// The helper dies with the future, so a hanging one ends at the time limit.
async fn run_helper(name: &str, server: &str) -> std::io::Result<HelperOutput> {
    let mut child = tokio::process::Command::new(format!("docker-credential-{name}"))
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // A helper that does not read its input can still answer.
        let _ = stdin.write_all(server.as_bytes()).await;
    }
    let mut stdout = Vec::new();
    if let Some(pipe) = child.stdout.take() {
        pipe.take(MAX_HELPER_OUTPUT).read_to_end(&mut stdout).await?;
    }
    Ok(HelperOutput {
        success: child.wait().await?.success(),
        stdout,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(config: &str, registry: &str) -> Option<Credential> {
        let credentials = Credentials::parse(config.as_bytes()).unwrap();
        tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap()
            .block_on(credentials.for_registry(registry))
            .unwrap()
    }

    fn password(user: &str, password: &str) -> Option<Credential> {
        Some(Credential::Password {
            user: user.into(),
            password: password.into(),
        })
    }

    #[test]
    fn i5_s6_credentials_that_others_may_write_are_refused_by_name() {
        use std::{error::Error as _, os::unix::fs::PermissionsExt as _};
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("config.json");
        std::fs::write(&path, "{}").unwrap();
        Credentials::load(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).unwrap();
        let error = Credentials::load(&path).unwrap_err();
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
        let why = error.source().unwrap().to_string();
        assert!(why.contains("chmod go-w"), "{why}");
    }

    #[test]
    fn p_06_both_forms_of_the_docker_configuration() {
        // dTpwOnc= is "u:p:w": a password may hold colons.
        let new = r#"{"auths":{"https://index.docker.io/v1/":{"auth":"dTpwOnc="},"r.io:5000":{"username":"a","password":"b"},
            "empty.io":{}},"HttpHeaders":{"x":"y"}}"#;
        let old = r#"{"https://index.docker.io/v1/":{"auth":"dTpwOnc=","email":"x@y"}}"#;
        assert_eq!(find(new, "docker.io"), password("u", "p:w"));
        assert_eq!(find(new, "R.io:5000"), password("a", "b"));
        assert_eq!(find(new, "r.io"), None);
        assert_eq!(find(new, "empty.io"), None);
        assert_eq!(find(old, "docker.io"), password("u", "p:w"));
        assert_eq!(find("{}", "docker.io"), None);
        assert_eq!(find(r#"{"HttpHeaders":{}}"#, "docker.io"), None);
        assert_eq!(
            find(r#"{"auths":{"a.io":{"identitytoken":"t"}}}"#, "a.io"),
            Some(Credential::IdentityToken("t".into()))
        );
    }

    #[test]
    fn s5_errors_about_credentials_do_not_quote_them() {
        for config in [
            r#"{"auths":{"a.io":{"auth":"canary-not-base64!"}}}"#,
            r#"{"auths":{"a.io":{"auth":["canary"]}}}"#,
            r#"{"auths":"canary"}"#,
            r#"canary"#,
            r#"["canary"]"#,
        ] {
            let error = anyhow::Error::new(Credentials::parse(config.as_bytes()).unwrap_err());
            assert!(!format!("{error:#} {error:?}").contains("canary"), "{error:#}");
        }
        let shown = format!(
            "{:?}",
            find(r#"{"auths":{"a.io":{"registrytoken":"canary"}}}"#, "a.io")
        );
        assert!(!shown.contains("canary"));
    }
}
