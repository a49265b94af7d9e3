//! The word that opens an API.

use std::{
    fmt,
    fs::{File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use hyper::header::HeaderValue;
use sha2::{Digest as _, Sha256};

/// Longer than any that is made anywhere.
const LONGEST: usize = 4 << 10;
/// Of those we make, in characters; guessing a shorter one is not out of the question.
const LENGTH: usize = 64;

/// Kept out of everything that is printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// Why a token cannot be read or kept.
#[derive(Debug, thiserror::Error)]
pub enum BadToken {
    #[error("cannot read the token in {}: {source}", .path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot keep a token in {}: {source}", .path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("{} holds no token: expected one line of visible characters", .0.display())]
    Nonsense(PathBuf),
}

impl Token {
    /// One that nobody guesses: 244 bits of chance.
    pub fn random() -> Self {
        let half = || uuid::Uuid::new_v4().simple().to_string();
        Token(half() + &half())
    }

    /// Of a variable or a file; none if it cannot go into a header.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let visible =
            !text.is_empty() && text.len() <= LONGEST && text.bytes().all(|byte| byte.is_ascii_graphic());
        visible.then(|| Token(text.to_owned()))
    }

    /// Of a file that somebody names.
    pub fn read(path: &Path) -> Result<Self, BadToken> {
        let failed = |source| BadToken::Read {
            path: path.to_owned(),
            source,
        };
        let text = read(File::open(path).map_err(failed)?).map_err(failed)?;
        Token::parse(&text).ok_or_else(|| BadToken::Nonsense(path.to_owned()))
    }

    /// The one in this file if it is ours and nobody else can read it; else a new one, for our eyes alone.
    pub fn keep(path: &Path) -> Result<Self, BadToken> {
        if let Some(kept) = kept(path) {
            return Ok(kept);
        }
        let token = Token::random();
        let failed = |source| BadToken::Write {
            path: path.to_owned(),
            source,
        };
        // Beside it and then in its place: whoever has planted something there is not followed.
        let new = path.with_extension(uuid::Uuid::new_v4().simple().to_string());
        let written = OpenOptions::new()
            .create_new(true)
            .write(true)
            .mode(0o600)
            .open(&new)
            .and_then(|mut file| {
                file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
                writeln!(file, "{}", token.0)
            })
            .and_then(|()| std::fs::rename(&new, path));
        if let Err(source) = written {
            // What was begun goes; that it could not be finished is what is told.
            let _ = std::fs::remove_file(&new);
            return Err(failed(source));
        }
        Ok(token)
    }

    /// For `Authorization`, kept out of what is printed.
    pub fn authorization(&self) -> Option<HeaderValue> {
        let mut value = HeaderValue::try_from(format!("Bearer {}", self.0)).ok()?;
        value.set_sensitive(true);
        Some(value)
    }

    pub fn text(&self) -> &str {
        &self.0
    }

    /// Whether this is it; how long that takes says nothing of where it differs.
    pub fn is(&self, shown: &[u8]) -> bool {
        same(self.0.as_bytes(), shown)
    }
}

/// Compares by digest, which nobody can steer towards the right one byte by byte.
pub(super) fn same(right: &[u8], shown: &[u8]) -> bool {
    let (right, shown) = (Sha256::digest(right), Sha256::digest(shown));
    right
        .iter()
        .zip(shown.iter())
        .fold(0, |all, (a, b)| all | (a ^ b))
        == 0
}

fn read(file: File) -> io::Result<String> {
    let mut text = String::new();
    file.take(LONGEST as u64 + 1).read_to_string(&mut text)?;
    Ok(text)
}

fn kept(path: &Path) -> Option<Token> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)
        .ok()?;
    let facts = file.metadata().ok()?;
    let ours = facts.is_file()
        && facts.uid() == nix::unistd::geteuid().as_raw()
        && facts.mode() & 0o077 == 0
        && facts.nlink() == 1;
    let text = ours.then(|| read(file).ok())??;
    Token::parse(&text).filter(|token| token.0.len() >= LENGTH)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    #[test]
    fn a_token_is_kept_for_our_eyes_alone_and_found_again() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("token");
        let token = Token::keep(&path).unwrap();
        assert_eq!(token.text().len(), LENGTH);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o600);
        assert_eq!(Token::keep(&path).unwrap(), token);
        assert_eq!(Token::read(&path).unwrap(), token);
        assert_eq!(format!("{token:?}"), "Token(…)");
        // One that others could read is one no more.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let second = Token::keep(&path).unwrap();
        assert_ne!(second, token);
        assert_eq!(mode(&path), 0o600);
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_was_planted_is_neither_followed_nor_believed() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("token");
        let theirs = place.path().join("theirs");
        fs::write(&theirs, "0".repeat(LENGTH)).unwrap();
        fs::set_permissions(&theirs, fs::Permissions::from_mode(0o600)).unwrap();
        std::os::unix::fs::symlink(&theirs, &path).unwrap();
        let token = Token::keep(&path).unwrap();
        assert!(!token.is("0".repeat(LENGTH).as_bytes()));
        assert_eq!(fs::read_to_string(&theirs).unwrap(), "0".repeat(LENGTH));
        fs::write(&path, "short").unwrap();
        assert_ne!(Token::keep(&path).unwrap().text(), "short");
    }

    #[test]
    fn only_the_right_one_is_it() {
        let token = Token::parse(" abc\n").unwrap();
        assert!(token.is(b"abc"));
        for wrong in [&b""[..], b"ab", b"abcd", b"abd", b"ABC"] {
            assert!(!token.is(wrong));
        }
        for nonsense in ["", " ", "a b", "a\nb", "ä"] {
            assert!(Token::parse(nonsense).is_none(), "{nonsense:?}");
        }
    }
}
