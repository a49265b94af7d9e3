//! What keeps the scheduler from its work, for whoever asks and for whoever only passes by.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use crate::pod::Version;

/// How we stand with the two that we cannot do without. Cheap to clone; all clones tell the same.
#[derive(Debug, Clone, Default)]
pub struct Standing(
    /// Held for moments, by the shell, by the master's session and by requests; never across a wait.
    Arc<Mutex<Troubles>>,
);

#[derive(Debug, Default)]
struct Troubles {
    master: Option<Trouble>,
    store: Option<Trouble>,
}

#[derive(Debug, Clone)]
struct Trouble {
    since: Version,
    what: String,
    why: String,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} since {}: {}", self.what, self.since, self.why)
    }
}

impl Standing {
    fn with<T>(&self, look: impl FnOnce(&mut Troubles) -> T) -> T {
        // Whoever panicked meanwhile left plain values behind.
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// There is no subscription. Of several reasons in a row the last is told, with the time of the first.
    pub fn without_master(&self, place: &str, why: &str, now: Version) {
        self.with(|troubles| {
            troubles.master = Some(Trouble {
                since: troubles.master.as_ref().map_or(now, |known| known.since),
                what: format!("not connected to the master {place}"),
                why: why.to_owned(),
            });
        });
    }

    pub fn with_master(&self) {
        self.with(|troubles| troubles.master = None);
    }

    /// Nothing can be stored.
    pub fn without_store(&self, why: &str, now: Version) {
        self.with(|troubles| {
            troubles.store = Some(Trouble {
                since: now,
                what: "no change is taken on".to_owned(),
                why: why.to_owned(),
            });
        });
    }

    pub fn with_store(&self) {
        self.with(|troubles| troubles.store = None);
    }

    pub fn is_troubled(&self) -> bool {
        self.with(|troubles| troubles.store.is_some() || troubles.master.is_some())
    }

    /// All there is to complain of, a sentence each.
    pub fn sentences(&self) -> Vec<String> {
        self.with(|troubles| {
            let both = [&troubles.store, &troubles.master];
            both.into_iter().flatten().map(ToString::to_string).collect()
        })
    }
}
