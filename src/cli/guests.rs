//! Whom `podling scheduler` lets in.

use std::{net::SocketAddr, path::PathBuf};

use clap::Args;

use super::{Failure, failure};
use crate::door::{Guard, Keeper, Names, Peers, Started, Tls, TlsFiles, Users};

/// Ways in beside the one that needs nothing: as the same user, on the same machine.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct Guests {
    /// Users and tokens that may use the API, with their roles
    #[arg(long, env = "PODLING_USERS", value_name = "FILE")]
    users: Option<PathBuf>,

    /// Serve https with this certificate and what leads to its authority, as PEM
    #[arg(long, env = "PODLING_TLS_CERT", value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,

    /// The certificate's key, as PEM
    #[arg(long, env = "PODLING_TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,

    /// Let in whoever shows a certificate of these authorities
    #[arg(
        long,
        env = "PODLING_TLS_CLIENT_CA",
        value_name = "FILE",
        requires = "tls_cert"
    )]
    tls_client_ca: Option<PathBuf>,

    /// Let everybody use the API, whoever reaches it
    #[arg(long)]
    insecure: bool,
}

/// The door as it is to be.
#[derive(Debug)]
pub(super) struct Door {
    pub keeper: Keeper,
    pub tls: Option<Tls>,
}

impl Guests {
    /// Refuses what would leave an API open, or closed to everybody, where others can reach it.
    pub fn receive(&self, listen: SocketAddr, hostname: Option<&str>) -> Result<Door, Failure> {
        let beyond = !listen.ip().is_loopback();
        let secure = self.tls_cert.is_some();
        if beyond && !self.insecure && self.users.is_none() && self.tls_client_ca.is_none() {
            return Err(Failure::usage(format!(
                "--listen {listen}: beyond this machine only guests are let in, and none are named: give --users FILE, \
                 or --tls-client-ca FILE with --tls-cert and --tls-key; --insecure lets in everybody"
            )));
        }
        let tls = match (&self.tls_cert, &self.tls_key) {
            (Some(certificate), Some(key)) => Some(
                Tls::open(TlsFiles {
                    certificate: certificate.clone(),
                    key: key.clone(),
                    client_authority: self.tls_client_ca.clone(),
                })
                .map_err(Failure::usage)?,
            ),
            _ => None,
        };
        if self.insecure {
            failure::complain("--insecure: whoever reaches the API can run commands on the cluster");
            return Ok(Door {
                keeper: Keeper::insecure(),
                tls,
            });
        }
        if beyond && !secure {
            failure::complain(
                "without --tls-cert and --tls-key, passwords and tokens can be read on their way here",
            );
        }
        let users = self.users.as_deref().map(Users::open);
        let users = users.transpose().map_err(Failure::usage)?;
        let keeper = Keeper::new(Guard {
            names: names(hostname),
            token: None,
            users,
            peers: Peers::open(Started::default()),
        });
        Ok(Door { keeper, tls })
    }
}

/// The names by which a server is to be known.
pub(super) fn names<'n>(given: impl IntoIterator<Item = &'n str>) -> Names {
    let mut names = Names::default();
    given.into_iter().for_each(|name| names.add(name));
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(listen: &str, guests: &Guests) -> bool {
        matches!(
            guests.receive(listen.parse().unwrap(), None),
            Err(Failure::Usage(_))
        )
    }

    #[test]
    fn without_guests_nobody_listens_beyond_loopback() {
        let nobody = Guests::default();
        for listen in ["127.0.0.1:0", "[::1]:0"] {
            assert!(!refused(listen, &nobody), "{listen}");
        }
        for listen in ["0.0.0.0:0", "[::]:0", "192.0.2.1:80"] {
            assert!(refused(listen, &nobody), "{listen}");
        }
        let insecure = Guests {
            insecure: true,
            ..Guests::default()
        };
        assert!(!refused("0.0.0.0:0", &insecure));
        // Named, but not there.
        let users = Guests {
            users: Some("/nowhere".into()),
            ..Guests::default()
        };
        assert!(refused("127.0.0.1:0", &users));
    }
}
