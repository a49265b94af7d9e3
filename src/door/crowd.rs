//! How many connections a listener holds, and whose.
//!
//! Whoever has not been let in yet is a stranger. Strangers have little time and little room: where there is no more of
//! it, the one that has waited longest goes for the one that comes, so that nobody can keep the door shut by standing
//! in it. Who has been let in stays, and is counted against the whole alone.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{sync::Notify, time::Instant};

/// A real server's worth of clients; an API of ours has fewer.
const MOST: usize = 1 << 16;
/// Whatever else is scarce, so many are served.
const FEWEST: usize = 16;

/// Who connections are counted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Who {
    /// On this machine.
    User(u32),
    /// Elsewhere. Of IPv6, the network: everybody has as many addresses in it as they like.
    Address(IpAddr),
}

impl Who {
    pub fn address(ip: IpAddr) -> Self {
        Who::Address(match ip {
            IpAddr::V6(six) => IpAddr::V6((u128::from(six) >> 64 << 64).into()),
            four => four,
        })
    }
}

/// What a listener endures.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub connections: usize,
    /// Of one user or address, as long as they are strangers.
    pub strangers: usize,
    /// For a stranger to say who it is.
    pub patience: Duration,
    /// For anybody to send the head of the next request; none: for ever.
    pub idle: Option<Duration>,
}

impl Limits {
    /// For an API that takes at most this part of the descriptors we may have.
    pub fn part(of: usize) -> Self {
        let descriptors = usize::try_from(getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX));
        let connections = (descriptors.unwrap_or(MOST) / of.max(1)).clamp(FEWEST, MOST);
        Limits {
            connections,
            strangers: (connections / 4).max(FEWEST / 2),
            patience: Duration::from_secs(10),
            idle: Some(Duration::from_secs(60)),
        }
    }

    /// Clients that keep a connection ready for when they need it.
    pub fn with_patient_friends(self) -> Self {
        Limits { idle: None, ..self }
    }
}

/// The limit of open files before it was raised.
static BEFORE: OnceLock<Rlimit> = OnceLock::new();

/// Lets us have as many descriptors as we may. To be called once, before anything listens.
pub fn raise_descriptors() {
    let before = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: before.maximum,
        maximum: before.maximum,
    };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => drop(BEFORE.set(before)),
        Err(error) => tracing::warn!("cannot raise the limit of open files: {error}"),
    }
}

/// What children are to be given if the limit was raised: programs that go through all descriptors that could be take
/// long with many.
pub fn descriptors_before() -> Option<Rlimit> {
    BEFORE.get().cloned()
}

/// The connections of one listener.
#[derive(Debug, Clone)]
pub struct Crowd {
    limits: Limits,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    admitted: usize,
    /// By age.
    strangers: BTreeMap<u64, (Who, Arc<Notify>)>,
    of: HashMap<Who, BTreeSet<u64>>,
}

impl State {
    fn take_out(&mut self, id: u64) -> Option<Arc<Notify>> {
        let (who, notify) = self.strangers.remove(&id)?;
        if let Some(theirs) = self.of.get_mut(&who) {
            theirs.remove(&id);
            if theirs.is_empty() {
                self.of.remove(&who);
            }
        }
        Some(notify)
    }

    fn evict(&mut self, id: Option<u64>) -> bool {
        match id.and_then(|id| self.take_out(id)) {
            Some(notify) => {
                notify.notify_one();
                true
            }
            None => false,
        }
    }
}

impl Crowd {
    pub fn new(limits: Limits) -> Self {
        Crowd {
            limits,
            state: Arc::default(),
        }
    }

    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// A place for one more; none if all are taken by people that we know.
    pub fn enter(&self, who: Who) -> Option<Entry> {
        let mut state = self.lock();
        let theirs = state.of.get(&who);
        if theirs.is_some_and(|theirs| theirs.len() >= self.limits.strangers) {
            let oldest = theirs.and_then(BTreeSet::first).copied();
            state.evict(oldest);
        }
        if state.admitted + state.strangers.len() >= self.limits.connections {
            let oldest = state.strangers.keys().next().copied();
            if !state.evict(oldest) {
                return None;
            }
        }
        let id = state.next;
        state.next += 1;
        let notify = Arc::new(Notify::new());
        state.strangers.insert(id, (who, notify.clone()));
        state.of.entry(who).or_default().insert(id);
        drop(state);
        Some(Entry {
            id,
            crowd: self.clone(),
            evicted: notify,
            standing: Mutex::new(Standing::Stranger(Instant::now())),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Counts may be off by what a panicking thread was about; nothing worse.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug, Clone, Copy)]
enum Standing {
    /// Since when it has said nothing.
    Stranger(Instant),
    Friend,
}

/// One connection's place. Dropping it makes room.
pub struct Entry {
    id: u64,
    crowd: Crowd,
    evicted: Arc<Notify>,
    standing: Mutex<Standing>,
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Entry({})", self.id)
    }
}

impl Entry {
    /// A whole request has come in.
    pub fn heard(&self) {
        let mut standing = self.standing();
        if matches!(*standing, Standing::Stranger(_)) {
            *standing = Standing::Stranger(Instant::now());
        }
    }

    /// It has been let in.
    pub fn admit(&self) {
        let mut standing = self.standing();
        let mut state = self.crowd.lock();
        // None: it has just been told to go.
        if state.take_out(self.id).is_some() {
            state.admitted += 1;
            *standing = Standing::Friend;
        }
    }

    /// Returns when a stranger has to go.
    pub async fn unwelcome(&self) {
        loop {
            let Some(due) = self.due() else {
                // Nothing to wait for; whoever waits for something else beside goes on.
                return std::future::pending().await;
            };
            if due <= Instant::now() {
                return;
            }
            tokio::select! {
                () = self.evicted.notified() => return,
                () = tokio::time::sleep_until(due) => {}
            }
        }
    }

    /// When a stranger's patience with us is over; a friend's never is.
    fn due(&self) -> Option<Instant> {
        match *self.standing() {
            Standing::Stranger(since) => Some(since + self.crowd.limits.patience),
            Standing::Friend => None,
        }
    }

    fn standing(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let friend = matches!(*self.standing(), Standing::Friend);
        let mut state = self.crowd.lock();
        match friend {
            true => state.admitted = state.admitted.saturating_sub(1),
            false => drop(state.take_out(self.id)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crowd(connections: usize, strangers: usize) -> Crowd {
        Crowd::new(Limits {
            connections,
            strangers,
            patience: Duration::from_secs(10),
            idle: None,
        })
    }

    async fn is_evicted(entry: &Entry) -> bool {
        tokio::time::timeout(Duration::ZERO, entry.unwelcome())
            .await
            .is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn one_stranger_goes_for_the_next_of_the_same_kind() {
        let crowd = crowd(100, 2);
        let other = crowd.enter(Who::User(1)).unwrap();
        let mut entries: Vec<Entry> = (0..2).map(|_| crowd.enter(Who::User(0)).unwrap()).collect();
        assert!(!is_evicted(&entries[0]).await);
        entries.push(crowd.enter(Who::User(0)).unwrap());
        assert!(is_evicted(&entries[0]).await);
        for entry in [&entries[1], &entries[2], &other] {
            assert!(!is_evicted(entry).await);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn friends_stay_and_strangers_make_room() {
        let crowd = crowd(3, 3);
        let friend = crowd.enter(Who::User(0)).unwrap();
        friend.admit();
        let oldest = crowd.enter(Who::User(1)).unwrap();
        let newer = crowd.enter(Who::User(2)).unwrap();
        let third = crowd.enter(Who::User(3)).unwrap();
        assert!(is_evicted(&oldest).await);
        assert!(!is_evicted(&friend).await && !is_evicted(&newer).await && !is_evicted(&third).await);
        // One that has been told to go is no friend any more.
        oldest.admit();
        assert_eq!(crowd.lock().admitted, 1);
        newer.admit();
        third.admit();
        assert!(crowd.enter(Who::User(0)).is_none());
        drop((friend, oldest));
        let last = crowd.enter(Who::User(0)).unwrap();
        drop((newer, third, last));
        let state = crowd.lock();
        assert_eq!((state.admitted, state.strangers.len(), state.of.len()), (0, 0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn strangers_who_say_nothing_have_little_time() {
        let crowd = crowd(9, 9);
        let (silent, speaking) = (
            crowd.enter(Who::User(0)).unwrap(),
            crowd.enter(Who::User(0)).unwrap(),
        );
        let friend = crowd.enter(Who::User(0)).unwrap();
        friend.admit();
        let begin = Instant::now();
        tokio::time::sleep(Duration::from_secs(5)).await;
        speaking.heard();
        silent.unwelcome().await;
        assert_eq!(begin.elapsed(), Duration::from_secs(10));
        speaking.unwelcome().await;
        assert_eq!(begin.elapsed(), Duration::from_secs(15));
        tokio::time::timeout(Duration::from_secs(1000), friend.unwelcome())
            .await
            .unwrap_err();
    }

    #[test]
    fn a_network_is_one_address() {
        let who = |text: &str| Who::address(text.parse().unwrap());
        assert_eq!(who("2001:db8::1"), who("2001:db8::2:3"));
        assert_ne!(who("2001:db8:0:1::1"), who("2001:db8::1"));
        assert_ne!(who("192.0.2.1"), who("192.0.2.2"));
    }
}
