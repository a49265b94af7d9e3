//! The executor's credential: a JSON Web Token signed with HMAC-SHA256 (wire file, section 9).

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};

/// Who a token speaks for.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct Claims {
    #[serde(rename = "fid")]
    pub framework: String,
    #[serde(rename = "eid")]
    pub executor: String,
    #[serde(rename = "cid")]
    pub container: String,
}

/// The agent's secret key.
pub(super) struct Secret([u8; 32]);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl Secret {
    pub(super) fn random() -> Self {
        let mut key = [0; 32];
        let (left, right) = key.split_at_mut(16);
        left.copy_from_slice(uuid::Uuid::new_v4().as_bytes());
        right.copy_from_slice(uuid::Uuid::new_v4().as_bytes());
        Secret(key)
    }

    pub(super) fn sign(&self, claims: &Claims) -> String {
        let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","typ":"JWT"}"#);
        let claims = serde_json::json!(claims).to_string();
        let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims));
        let signature = URL_SAFE_NO_PAD.encode(self.hmac(signed.as_bytes()));
        format!("{signed}.{signature}")
    }

    /// The claims of an `Authorization` header, if this agent signed them.
    pub(super) fn verify(&self, header: Option<&[u8]>) -> Option<Claims> {
        let header = std::str::from_utf8(header?).ok()?;
        let token = header.strip_prefix("Bearer ")?;
        let (signed, signature) = token.rsplit_once('.')?;
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        let right = self.hmac(signed.as_bytes());
        // All bytes are compared, so that the time taken says nothing of where they differ.
        let differs = right.iter().zip(&signature).fold(0, |all, (a, b)| all | (a ^ b));
        if signature.len() != right.len() || differs != 0 {
            return None;
        }
        let claims = URL_SAFE_NO_PAD.decode(signed.split_once('.')?.1).ok()?;
        serde_json::from_slice(&claims).ok()
    }

    /// RFC 2104, for a key shorter than a block.
    fn hmac(&self, message: &[u8]) -> [u8; 32] {
        hmac(&self.0, message)
    }
}

fn hmac(key: &[u8], message: &[u8]) -> [u8; 32] {
    const BLOCK: usize = 64;
    let padded = |pad: u8| -> Vec<u8> {
        let key = key.iter().copied().chain(std::iter::repeat(0));
        key.take(BLOCK).map(|byte| byte ^ pad).collect()
    };
    let inner = Sha256::new()
        .chain_update(padded(0x36))
        .chain_update(message)
        .finalize();
    Sha256::new()
        .chain_update(padded(0x5c))
        .chain_update(inner)
        .finalize()
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims() -> Claims {
        Claims {
            framework: "f".into(),
            executor: "e".into(),
            container: "c".into(),
        }
    }

    #[test]
    fn the_mac_is_that_of_rfc_4231() {
        let mac = hmac(b"Jefe", b"what do ya want for nothing?");
        let hex: String = mac.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hex,
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
    }

    #[test]
    fn only_what_this_agent_signed_is_believed() {
        let secret = Secret::random();
        let token = secret.sign(&claims());
        let verify = |header: &str| secret.verify(Some(header.as_bytes()));
        assert_eq!(verify(&format!("Bearer {token}")), Some(claims()));
        assert_eq!(
            Secret::random().verify(Some(format!("Bearer {token}").as_bytes())),
            None
        );
        assert_eq!(secret.verify(None), None);
        let (signed, signature) = token.rsplit_once('.').unwrap();
        for forged in [
            token.clone(),
            format!("Basic {token}"),
            "Bearer ".into(),
            "Bearer a.b".into(),
            format!("Bearer {signed}."),
            format!("Bearer {signed}.{}", &signature[..20]),
            format!("Bearer x{token}"),
        ] {
            assert_eq!(verify(&forged), None, "{forged}");
        }
    }
}
