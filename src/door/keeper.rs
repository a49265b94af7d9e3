//! Who a request comes from, and whether that is enough.

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hyper::{
    HeaderMap, Method,
    header::{AUTHORIZATION, FORWARDED, HeaderName, HeaderValue, VIA},
    http::request::Parts,
};

use super::{
    page::{self, Names},
    peer::{Caller, Peers},
    token::Token,
    users::{Found, Role, Users},
};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Why somebody is not let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub status: u16,
    pub reason: String,
    /// For `WWW-Authenticate`.
    pub challenge: Option<HeaderValue>,
}

impl Refusal {
    pub(super) fn new(status: u16, reason: impl Into<String>) -> Self {
        Refusal {
            status,
            reason: reason.into(),
            challenge: None,
        }
    }

    pub(super) fn forbidden(reason: impl Into<String>) -> Self {
        Refusal::new(403, reason)
    }
}

/// What somebody shows of themselves.
#[derive(Debug, PartialEq, Eq)]
enum Shown<'h> {
    Nothing,
    Token(&'h [u8]),
    Basic { user: String, password: String },
    Nonsense,
}

/// Guards one API.
#[derive(Debug, Clone, Default)]
pub struct Keeper {
    /// None: everybody may do everything, whoever they are.
    guard: Option<Arc<Guard>>,
}

/// Ways in, each of them enough. Without any nobody is let in.
#[derive(Debug, Default)]
pub struct Guard {
    /// Under which we are addressed.
    pub names: Names,
    pub token: Option<Token>,
    pub users: Option<Users>,
    /// The owner needs nothing else.
    pub peers: Option<Peers>,
}

impl Keeper {
    /// Lets everybody in.
    pub fn insecure() -> Self {
        Keeper::default()
    }

    pub fn new(guard: Guard) -> Self {
        Keeper {
            guard: Some(Arc::new(guard)),
        }
    }

    /// What says who is at the other end of a connection.
    pub fn peers(&self) -> Option<&Peers> {
        self.guard.as_ref()?.peers.as_ref()
    }

    /// For paths that tell nothing and change nothing: only pages are kept out.
    pub fn passes(&self, head: &Parts, caller: &Caller) -> Result<(), Refusal> {
        match &self.guard {
            Some(guard) => page::judge(
                &guard.names,
                caller.reached(),
                (&head.method, &head.uri, &head.headers),
            ),
            None => Ok(()),
        }
    }

    /// Whether this request may be carried out.
    pub async fn admits(&self, head: &Parts, caller: &Caller) -> Result<(), Refusal> {
        self.passes(head, caller)?;
        match &self.guard {
            Some(guard) => match guard.role(head, caller).await? {
                Role::Read if !reads(&head.method) => Err(Refusal::forbidden("this user may only read")),
                _ => Ok(()),
            },
            None => Ok(()),
        }
    }
}

impl Guard {
    async fn role(&self, head: &Parts, caller: &Caller) -> Result<Role, Refusal> {
        let found = match shown(&head.headers) {
            Shown::Nothing if caller.is_certified() => Some(Role::Write),
            Shown::Nothing => {
                self.is_owner(head, caller).await?;
                Some(Role::Write)
            }
            Shown::Token(shown) => self.by_token(shown),
            Shown::Basic { user, password } => self.by_password(&user, &password).await?,
            Shown::Nonsense => None,
        };
        found.ok_or_else(|| self.unknown("what Authorization says is not known here".to_owned()))
    }

    fn by_token(&self, shown: &[u8]) -> Option<Role> {
        match self.token.as_ref().is_some_and(|token| token.is(shown)) {
            true => Some(Role::Write),
            false => self.users.as_ref()?.by_token(shown),
        }
    }

    /// A token goes as a password too, under any name, for clients that know nothing else.
    async fn by_password(&self, user: &str, password: &str) -> Result<Option<Role>, Refusal> {
        if let Some(role) = self.by_token(password.as_bytes()) {
            return Ok(Some(role));
        }
        let Some(users) = &self.users else { return Ok(None) };
        match users.by_password(user, password).await {
            Found::Role(role) => Ok(Some(role)),
            Found::Nobody => Ok(None),
            Found::Busy => Err(Refusal::new(
                503,
                "too many passwords are being looked at; try again",
            )),
        }
    }

    async fn is_owner(&self, head: &Parts, caller: &Caller) -> Result<(), Refusal> {
        let Some(peers) = &self.peers else {
            return Err(self.unknown("show a token or a password".to_owned()));
        };
        // Who speaks for others is not asked for its own sake.
        if [FORWARDED, VIA, FORWARDED_FOR]
            .iter()
            .any(|name| head.headers.contains_key(name))
        {
            return Err(self.unknown("who sends on for others has to show a token".to_owned()));
        }
        peers.is_owner(caller).await.map_err(|stranger| {
            self.unknown(format!(
                "show a token; without one only the owner is let in, and {stranger}"
            ))
        })
    }

    fn unknown(&self, reason: String) -> Refusal {
        let challenge = match self.users {
            // What Marathon says, and what its clients look for.
            Some(_) => "Basic realm=\"podling\", charset=\"UTF-8\"",
            None => "Bearer realm=\"podling\"",
        };
        Refusal {
            challenge: Some(HeaderValue::from_static(challenge)),
            ..Refusal::new(401, reason)
        }
    }
}

/// `Bearer` as the RFC has it, `token=` as clients of Marathon under DC/OS do.
fn shown(headers: &HeaderMap) -> Shown<'_> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let Some(value) = values.next() else {
        return Shown::Nothing;
    };
    if values.next().is_some() {
        return Shown::Nonsense;
    }
    let value = value.as_bytes();
    if let Some(token) = after(value, b"token=") {
        return Shown::Token(token);
    }
    if let Some(token) = after(value, b"bearer ") {
        return Shown::Token(token);
    }
    let basic = || {
        let text = STANDARD.decode(after(value, b"basic ")?).ok()?;
        let text = String::from_utf8(text).ok()?;
        let (user, password) = text.split_once(':')?;
        Some(Shown::Basic {
            user: user.to_owned(),
            password: password.to_owned(),
        })
    };
    basic().unwrap_or(Shown::Nonsense)
}

/// What follows a scheme, whose case does not matter.
fn after<'v>(value: &'v [u8], scheme: &[u8]) -> Option<&'v [u8]> {
    let (start, rest) = value.split_at_checked(scheme.len())?;
    start.eq_ignore_ascii_case(scheme).then(|| rest.trim_ascii())
}

/// Whether a method only looks.
fn reads(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_str(value).unwrap())])
    }

    #[test]
    fn credentials_are_read_as_clients_write_them() {
        let token = Shown::Token(b"abc");
        for value in [
            "Bearer abc",
            "bearer abc",
            "token=abc",
            "Token=abc",
            "Bearer  abc ",
        ] {
            assert_eq!(shown(&headers(value)), token, "{value}");
        }
        let basic = Shown::Basic {
            user: "Aladdin".to_owned(),
            password: "open:sesame".to_owned(),
        };
        assert_eq!(shown(&headers("Basic QWxhZGRpbjpvcGVuOnNlc2FtZQ==")), basic);
        for value in [
            "",
            "abc",
            "Basic",
            "Basic !",
            "Basic QQ==",
            "Digest x",
            "Bearer",
            "tok",
        ] {
            assert_eq!(shown(&headers(value)), Shown::Nonsense, "{value}");
        }
        assert_eq!(shown(&HeaderMap::new()), Shown::Nothing);
        let mut twice = headers("Bearer a");
        twice.append(AUTHORIZATION, HeaderValue::from_static("Bearer b"));
        assert_eq!(shown(&twice), Shown::Nonsense);
    }
}
