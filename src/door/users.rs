//! People and programs that may use a scheduler's API, from a file.
//!
//! ```toml
//! [[user]]
//! name = "ci"
//! password = "$6$…"            # openssl passwd -6
//! role = "write"
//!
//! [[token]]
//! name = "dashboard"
//! sha256 = "…"                 # printf %s "$TOKEN" | sha256sum
//! role = "read"
//! ```
//!
//! Passwords are short, so they are kept as something that takes long to compute; that is done once for each that is
//! right, beside all other work and one at a time. Tokens are long: a plain digest of one gives nothing away.

use std::{
    collections::HashMap,
    fmt, fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use serde::Deserialize;
use sha_crypt::{PasswordVerifier as _, ShaCrypt};
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;

use super::token::{Token, same};

/// How often the file is looked at, at most.
const PACE: Duration = Duration::from_secs(1);
/// Longer passwords are nobody's; each byte costs time.
const LONGEST_PASSWORD: usize = 256;
const LONGEST_FILE: u64 = 4 << 20;
/// Right passwords that are remembered.
const REMEMBERED: usize = 4096;
/// Passwords that wait to be looked at; with more, somebody is guessing.
const WAITING: usize = 64;
/// Of nobody: an unknown name takes as long as a wrong password.
const NOBODYS: &str = "$6$podlingpodling$wVwhqPmq7f5DG2AzKnKv8PsX31e7qwdg8NQR19am7yv3vykk3aMVLH6xqzD.IyR7fiSCGVSGrR.FPmYxe4feV/";

/// What somebody may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    Read,
    Write,
}

/// Why a file of users cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BadUsers {
    #[error("cannot read the users in {}: {source}", .path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{}: others may read or change it; chmod 600, and owned by root or this user", .0.display())]
    Open(PathBuf),
    #[error("{}: {}", .path.display(), .problem)]
    Content { path: PathBuf, problem: String },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(default)]
    user: Vec<WrittenUser>,
    #[serde(default)]
    token: Vec<WrittenToken>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenUser {
    name: String,
    password: String,
    role: Role,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenToken {
    name: String,
    sha256: String,
    role: Role,
}

/// What tells whether a file has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp(u64, i64, i64, u64);

impl Stamp {
    pub fn of(facts: &fs::Metadata) -> Self {
        Stamp(facts.ino(), facts.mtime(), facts.mtime_nsec(), facts.len())
    }
}

struct Known {
    users: HashMap<String, (String, Role)>,
    /// By digest.
    tokens: Vec<(String, Role)>,
}

struct State {
    known: Known,
    stamp: Stamp,
    looked: Instant,
    /// Right passwords, by digest with a key that nobody else has.
    verified: HashMap<[u8; 32], Role>,
}

/// Users, read again when their file changes.
#[derive(Clone)]
pub struct Users(Arc<Inner>);

struct Inner {
    path: PathBuf,
    key: Token,
    state: Mutex<State>,
    hands: Semaphore,
    queue: Semaphore,
}

impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Users({})", self.0.path.display())
    }
}

/// What comes of looking somebody up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    Role(Role),
    Nobody,
    /// Too many ask at once.
    Busy,
}

impl Users {
    pub fn open(path: &Path) -> Result<Self, BadUsers> {
        let (known, stamp) = read(path)?;
        Ok(Users(Arc::new(Inner {
            path: path.to_owned(),
            key: Token::random(),
            state: Mutex::new(State {
                known,
                stamp,
                looked: Instant::now(),
                verified: HashMap::new(),
            }),
            hands: Semaphore::new(1),
            queue: Semaphore::new(WAITING),
        })))
    }

    pub(super) fn by_token(&self, shown: &[u8]) -> Option<Role> {
        let digest = hex(&Sha256::digest(shown));
        let state = self.current();
        let mut tokens = state.known.tokens.iter();
        tokens
            .find(|(token, _)| same(token.as_bytes(), digest.as_bytes()))
            .map(|(_, role)| *role)
    }

    pub(super) async fn by_password(&self, name: &str, password: &str) -> Found {
        if password.len() > LONGEST_PASSWORD || name.len() > LONGEST_PASSWORD {
            return Found::Nobody;
        }
        let digest = self.digest(name, password);
        let remembered = |state: &State| state.verified.get(&digest).copied();
        if let Some(role) = remembered(&self.current()) {
            return Found::Role(role);
        }
        let Ok(_place) = self.0.queue.try_acquire() else {
            return Found::Busy;
        };
        let Ok(_hand) = self.0.hands.acquire().await else {
            return Found::Busy;
        };
        let (hash, role, stamp) = {
            let state = self.current();
            // Whoever was here before us may have asked the same.
            if let Some(role) = remembered(&state) {
                return Found::Role(role);
            }
            let user = state.known.users.get(name);
            let hash = user.map_or_else(|| NOBODYS.to_owned(), |(hash, _)| hash.clone());
            (hash, user.map(|(_, role)| *role), state.stamp)
        };
        let password = password.to_owned();
        let right = tokio::task::spawn_blocking(move || is_right(&password, &hash)).await;
        let (Ok(true), Some(role)) = (right, role) else {
            return Found::Nobody;
        };
        let mut state = self.lock();
        // The file may have changed meanwhile; then it is asked again the next time.
        if state.stamp == stamp {
            if state.verified.len() >= REMEMBERED {
                state.verified.clear();
            }
            state.verified.insert(digest, role);
        }
        Found::Role(role)
    }

    fn digest(&self, name: &str, password: &str) -> [u8; 32] {
        Sha256::new()
            .chain_update(self.0.key.text())
            .chain_update(name.len().to_le_bytes())
            .chain_update(name)
            .chain_update(password)
            .finalize()
            .into()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A thread that panicked has left either the old or the new.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the file says now. A file that makes no sense is told of, and what it said before holds.
    fn current(&self) -> MutexGuard<'_, State> {
        let mut state = self.lock();
        if state.looked.elapsed() < PACE {
            return state;
        }
        state.looked = Instant::now();
        let stamp = fs::metadata(&self.0.path).ok().map(|facts| Stamp::of(&facts));
        if stamp == Some(state.stamp) {
            return state;
        }
        match read(&self.0.path) {
            Ok((known, stamp)) => {
                state.known = known;
                state.stamp = stamp;
                state.verified.clear();
                tracing::info!("users read again from {}", self.0.path.display());
            }
            Err(error) => tracing::warn!("{error}; the users from before stay"),
        }
        state
    }
}

fn is_right(password: &str, hash: &str) -> bool {
    ShaCrypt::default()
        .verify_password(password.as_bytes(), hash)
        .is_ok()
}

fn read(path: &Path) -> Result<(Known, Stamp), BadUsers> {
    let failed = |source| BadUsers::Read {
        path: path.to_owned(),
        source,
    };
    let file = fs::File::open(path).map_err(failed)?;
    let facts = file.metadata().map_err(failed)?;
    let ours = [0, nix::unistd::geteuid().as_raw()].contains(&facts.uid());
    if !ours || facts.mode() & 0o027 != 0 {
        return Err(BadUsers::Open(path.to_owned()));
    }
    let mut text = String::new();
    io::Read::read_to_string(&mut io::Read::take(file, LONGEST_FILE), &mut text).map_err(failed)?;
    let problem = |problem: String| BadUsers::Content {
        path: path.to_owned(),
        problem,
    };
    // Not with the line it stands in, which may hold a secret.
    let written: Written = toml::from_str(&text).map_err(|error| problem(error.message().to_owned()))?;
    let known = understand(written).map_err(problem)?;
    Ok((known, Stamp::of(&facts)))
}

fn understand(written: Written) -> Result<Known, String> {
    let mut users = HashMap::new();
    for user in written.user {
        let name = user.name;
        if name.is_empty() || name.contains(':') {
            return Err(format!("user {name:?}: a name is not empty and has no colon"));
        }
        if !user.password.starts_with("$6$") && !user.password.starts_with("$5$") {
            return Err(format!(
                "user {name:?}: its password is no hash; make one with `openssl passwd -6`"
            ));
        }
        if users.insert(name.clone(), (user.password, user.role)).is_some() {
            return Err(format!("user {name:?} is there twice"));
        }
    }
    let mut tokens = Vec::new();
    for token in written.token {
        let digest = token.sha256.to_ascii_lowercase();
        if digest.len() != 64 || !digest.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(format!(
                "token {:?}: sha256 is no digest of 64 digits; make one with `printf %s \"$TOKEN\" | sha256sum`",
                token.name
            ));
        }
        tokens.push((digest, token.role));
    }
    if users.is_empty() && tokens.is_empty() {
        return Err("it names neither a user nor a token".to_owned());
    }
    Ok(Known { users, tokens })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// `openssl passwd -6 -salt saltstring 'Hello world!'`, the example of the algorithm's own description.
    const HASH: &str = "$6$saltstring$svn8UoSVapNtMuq1ukKS4tPQd8iKwSMHWjl/O817G3uBnIFNjnQJuesI68u4OTLiBFdcbYEdFCoEOfaS35inz1";

    fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("users.toml");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        (place, path)
    }

    fn users() -> String {
        let digest = hex(&Sha256::digest("long"));
        format!(
            "[[user]]\nname = \"ci\"\npassword = \"{HASH}\"\nrole = \"write\"\n\
             [[token]]\nname = \"board\"\nsha256 = \"{digest}\"\nrole = \"read\"\n"
        )
    }

    #[tokio::test]
    async fn users_and_tokens_have_their_roles() {
        let (_place, path) = file(&users());
        let users = Users::open(&path).unwrap();
        assert_eq!(
            users.by_password("ci", "Hello world!").await,
            Found::Role(Role::Write)
        );
        assert_eq!(users.lock().verified.len(), 1);
        assert_eq!(
            users.by_password("ci", "Hello world!").await,
            Found::Role(Role::Write)
        );
        for (name, password) in [
            ("ci", "Hello world"),
            ("", "Hello world!"),
            ("CI", "Hello world!"),
            ("ci", ""),
        ] {
            assert_eq!(
                users.by_password(name, password).await,
                Found::Nobody,
                "{name} {password}"
            );
        }
        assert_eq!(users.lock().verified.len(), 1);
        assert_eq!(users.by_token(b"long"), Some(Role::Read));
        assert_eq!(users.by_token(b"longer"), None);
    }

    #[tokio::test]
    async fn a_file_that_has_changed_is_read_again_and_nonsense_changes_nothing() {
        let (_place, path) = file(&users());
        let users = Users::open(&path).unwrap();
        assert_eq!(
            users.by_password("ci", "Hello world!").await,
            Found::Role(Role::Write)
        );
        let look = |users: &Users| users.lock().looked = Instant::now().checked_sub(PACE).unwrap();
        fs::write(&path, "[[user").unwrap();
        look(&users);
        assert_eq!(
            users.by_password("ci", "Hello world!").await,
            Found::Role(Role::Write)
        );
        fs::write(
            &path,
            format!(
                "[[token]]\nname = \"x\"\nsha256 = \"{}\"\nrole = \"write\"\n",
                "0".repeat(64)
            ),
        )
        .unwrap();
        look(&users);
        assert_eq!(users.by_password("ci", "Hello world!").await, Found::Nobody);
        assert_eq!(users.by_token(b"long"), None);
    }

    #[test]
    fn what_makes_no_sense_is_told_without_the_secret() {
        for text in [
            "",
            "[[user]]\nname = \"ci\"\npassword = \"plain-secret\"\nrole = \"write\"",
            "[[user]]\nname = \"ci\"\npassword = \"$6$plain-secret\"\nrole = \"admin\"",
            "[[user]]\nname = \"a:b\"\npassword = \"$6$plain-secret\"\nrole = \"read\"",
            "[[user]]\nname = \"a\"\npasswort = \"$6$plain-secret\"\nrole = \"read\"",
            "[[token]]\nname = \"a\"\nsha256 = \"plain-secret\"\nrole = \"read\"",
        ] {
            let (_place, path) = file(text);
            let error = Users::open(&path).unwrap_err().to_string();
            assert!(!error.contains("plain-secret"), "{error}");
            assert!(error.contains("users.toml"), "{error}");
        }
    }

    #[test]
    fn a_file_that_others_can_read_is_refused() {
        let (_place, path) = file(&users());
        for mode in [0o644, 0o620, 0o602] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert!(matches!(Users::open(&path), Err(BadUsers::Open(_))), "{mode:o}");
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        Users::open(&path).unwrap();
    }

    #[test]
    fn nobodys_password_takes_as_long_as_somebodys() {
        assert!(!is_right("anything", NOBODYS));
        let began = Instant::now();
        is_right("anything", NOBODYS);
        assert!(
            began.elapsed() > Duration::from_micros(100),
            "it is not even a hash"
        );
    }
}
