//! `WWW-Authenticate`, as registries use it.

/// One way a registry offers to authenticate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Challenge {
    Basic,
    /// A token from a token service.
    Bearer {
        realm: String,
        service: Option<String>,
        scope: Option<String>,
    },
}

/// A header longer than this is not read.
const MAX_HEADER: usize = 8192;

/// Reads the challenges in one header value. Schemes nobody here speaks are left out; a header that is not in the
/// grammar yields what could be read before the fault.
pub fn parse(header: &str) -> Vec<Challenge> {
    let mut challenges = Vec::new();
    if header.len() > MAX_HEADER {
        return challenges;
    }
    let mut rest = Scanner(header);
    loop {
        rest.skip(|c| c.is_ascii_whitespace() || c == ',');
        let Some(scheme) = rest.token() else {
            return challenges;
        };
        let (mut realm, mut service, mut scope) = (None, None, None);
        loop {
            let mark = rest.0;
            rest.skip(|c| c.is_ascii_whitespace() || c == ',');
            // `name = value` belongs to this scheme; a name alone is the next scheme.
            let Some(name) = rest.token() else { break };
            rest.skip(|c| c.is_ascii_whitespace());
            if !rest.eat('=') {
                rest.0 = mark;
                break;
            }
            rest.skip(|c| c.is_ascii_whitespace());
            let Some(value) = rest.value() else {
                return challenges;
            };
            let slot = match name.to_ascii_lowercase().as_str() {
                "realm" => &mut realm,
                "service" => &mut service,
                "scope" => &mut scope,
                _ => continue,
            };
            // Of two values the first one counts.
            slot.get_or_insert(value);
        }
        if scheme.eq_ignore_ascii_case("basic") {
            challenges.push(Challenge::Basic);
        } else if scheme.eq_ignore_ascii_case("bearer")
            && let Some(realm) = realm
        {
            challenges.push(Challenge::Bearer {
                realm,
                service,
                scope,
            });
        }
    }
}

struct Scanner<'a>(&'a str);

impl<'a> Scanner<'a> {
    fn skip(&mut self, what: impl Fn(char) -> bool) {
        self.0 = self.0.trim_start_matches(what);
    }

    fn eat(&mut self, wanted: char) -> bool {
        match self.0.strip_prefix(wanted) {
            Some(rest) => {
                self.0 = rest;
                true
            }
            None => false,
        }
    }

    fn token(&mut self) -> Option<&'a str> {
        let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
        let end = self.0.find(|c| !is_token(c)).unwrap_or(self.0.len());
        let (token, rest) = self.0.split_at_checked(end)?;
        self.0 = rest;
        (!token.is_empty()).then_some(token)
    }

    fn value(&mut self) -> Option<String> {
        if !self.eat('"') {
            return self.token().map(str::to_owned);
        }
        let mut value = String::new();
        let mut chars = self.0.char_indices();
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => {
                    self.0 = self.0.get(at + 1..)?;
                    return Some(value);
                }
                '\\' => value.push(chars.next()?.1),
                c => value.push(c),
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Challenge {
        Challenge::Bearer {
            realm: realm.into(),
            service: service.map(Into::into),
            scope: scope.map(Into::into),
        }
    }

    #[test]
    fn challenges_of_real_registries() {
        for (header, want) in [
            ("Basic realm=\"r\"", vec![Challenge::Basic]),
            ("basic", vec![Challenge::Basic]),
            (
                "Bearer realm=\"https://auth.docker.io/token\",service=\"registry.docker.io\",scope=\"repository:a/b:pull\"",
                vec![bearer(
                    "https://auth.docker.io/token",
                    Some("registry.docker.io"),
                    Some("repository:a/b:pull"),
                )],
            ),
            (
                "BEARER  Realm = x , scope=\"a b, c\"",
                vec![bearer("x", None, Some("a b, c"))],
            ),
            (
                "Negotiate, Basic realm=\"a\\\"b\", Bearer realm=\"y\"",
                vec![Challenge::Basic, bearer("y", None, None)],
            ),
            ("Bearer realm=\"1\", realm=\"2\"", vec![bearer("1", None, None)]),
        ] {
            assert_eq!(parse(header), want, "{header}");
        }
    }

    #[test]
    fn i5_crafted_headers_yield_nothing() {
        for header in [
            "",
            ",",
            "=",
            "Bearer",
            "Bearer realm",
            "Bearer realm=",
            "Bearer realm=\"x",
            "Bearer realm=\"x\\",
            "Bearer service=\"x\"",
            "\"Basic\"",
        ] {
            assert_eq!(parse(header), vec![], "{header}");
        }
        assert_eq!(parse(&format!("Bearer realm=\"{}\"", "x".repeat(9000))), vec![]);
    }

    proptest! {
        #[test]
        fn any_header_is_read(header in "\\PC{0,200}|[A-Za-z=\", \\\\]{0,60}") {
            parse(&header);
        }
    }
}
