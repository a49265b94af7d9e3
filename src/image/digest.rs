//! Content addresses. A [`Digest`] is always a well-formed sha256, so it is safe as a file name.

use std::{fmt, str::FromStr};

use sha2::{Digest as _, Sha256};

/// The sha256 of some bytes. Other algorithms are refused: no registry in use needs them, and each one more is a
/// second name for the same content.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest([u8; 32]);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    #[error("digest {0:?} is not of the form sha256:<64 hexadecimal digits>")]
    Form(String),
    #[error("digest algorithm {0:?} is not supported, only sha256 is")]
    Algorithm(String),
}

impl Digest {
    pub fn of(bytes: &[u8]) -> Digest {
        Digest(Sha256::digest(bytes).into())
    }

    /// The 64 hexadecimal digits alone, as used for file names.
    pub fn hex(&self) -> String {
        use fmt::Write as _;
        self.0.iter().fold(String::with_capacity(64), |mut out, byte| {
            // Writing to a String cannot fail.
            let _ = write!(out, "{byte:02x}");
            out
        })
    }

    /// Reads what [`Digest::hex`] wrote: exactly 64 lower-case digits.
    pub fn from_hex(text: &str) -> Result<Digest, DigestError> {
        let form = || DigestError::Form(shorten(text));
        if text.len() != 64 {
            return Err(form());
        }
        let mut bytes = [0u8; 32];
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let [high, low] = pair else { return Err(form()) };
            *byte = hex_value(*high)
                .zip(hex_value(*low))
                .map(|(high, low)| high << 4 | low)
                .ok_or_else(form)?;
        }
        Ok(Digest(bytes))
    }
}

/// Upper case is refused: two spellings of one digest would be two names for one blob.
fn hex_value(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

fn shorten(text: &str) -> String {
    text.chars().take(100).collect()
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Digest, DigestError> {
        match text.split_once(':') {
            Some(("sha256", hex)) => Digest::from_hex(hex).map_err(|_| DigestError::Form(shorten(text))),
            Some((algorithm @ ("sha384" | "sha512" | "md5" | "sha1" | "blake3"), _)) => {
                Err(DigestError::Algorithm(algorithm.to_owned()))
            }
            _ => Err(DigestError::Form(shorten(text))),
        }
    }
}

impl TryFrom<&oci_spec::image::Digest> for Digest {
    type Error = DigestError;

    fn try_from(digest: &oci_spec::image::Digest) -> Result<Digest, DigestError> {
        digest.as_ref().parse()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl serde::Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Digest, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// A digest in the making.
#[derive(Debug, Clone, Default)]
pub struct Hasher(Sha256);

impl Hasher {
    pub fn new() -> Hasher {
        Hasher::default()
    }

    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub fn finish(self) -> Digest {
        Digest(self.0.finalize().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn known_value_round_trips() {
        assert_eq!(Digest::of(b"").to_string(), EMPTY);
        assert_eq!(EMPTY.parse::<Digest>().unwrap(), Digest::of(b""));
        let mut hasher = Hasher::new();
        hasher.update(b"ab");
        hasher.update(b"c");
        assert_eq!(hasher.finish(), Digest::of(b"abc"));
    }

    /// I1: digest strings with path characters, other algorithms, wrong length, upper case.
    #[test]
    fn i1_every_odd_digest_string_is_refused() {
        let hex = &EMPTY[7..];
        for odd in [
            String::new(),
            ":".into(),
            "sha256".into(),
            "sha256:".into(),
            hex.to_owned(),
            format!("sha256:{}", &hex[1..]),
            format!("sha256:{hex}0"),
            format!("sha256:{}", hex.to_uppercase()),
            format!("SHA256:{hex}"),
            format!("sha512:{hex}"),
            format!("sha512:{hex}{hex}"),
            format!("md5:{}", &hex[..32]),
            format!("sha256:../{}", &hex[3..]),
            format!("sha256:{}/", &hex[1..]),
            format!(" sha256:{hex}"),
            format!("sha256:{hex}\n"),
            format!("sha256:{}\0", &hex[1..]),
            format!("sha256:{}é", &hex[2..]),
            format!("sha256+b64:{hex}"),
            format!("sha256::{hex}"),
        ] {
            assert!(odd.parse::<Digest>().is_err(), "{odd:?} was accepted");
        }
    }
}
