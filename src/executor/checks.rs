//! The checks of members: each looks by itself, again and again, until its member's end begins.
//!
//! A check is a task of this thread that mostly sleeps, so a slow one delays no other. Whether there is an agent does
//! not matter (S-11).

use std::{
    cell::{Cell, RefCell},
    fs,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    sync::{Notify, mpsc},
    task::JoinSet,
};

use crate::{
    check::Prober,
    container::Running,
    group::{
        Event, MemberId,
        extra_checks::ExtraCheck,
        probe::{Outcome, Probe, Seen, Sight},
        watch::Watch,
    },
    mesos::v1,
};

/// A process that ends takes its sockets with it before anybody hears of its end. A member that a check speaks ill of
/// has so long to be found dead: then it is its own end that is told, and nothing else.
const LAST_LOOK: Duration = Duration::from_millis(100);

/// A member that is on its way out for so long hangs, and is judged after all.
const LONGEST_END: Duration = Duration::from_secs(5);

/// What the checks of all members have in common.
#[derive(Debug, Clone)]
pub struct Checks {
    /// When the executor started: the machine's zero.
    start: Instant,
    /// How many there are, to spread them.
    count: Rc<Cell<usize>>,
    answers: mpsc::UnboundedSender<Event>,
}

/// What a member's definition says of its checks.
#[derive(Debug)]
pub struct Wanted {
    pub task: Arc<v1::TaskInfo>,
    /// What its scheduler asks for beyond that.
    pub extra: Vec<ExtraCheck>,
}

/// The checks of one running member; dropping it stops them, and whatever they have begun.
#[derive(Debug)]
pub struct Checking {
    count: Rc<Cell<usize>>,
    tasks: JoinSet<()>,
}

/// What the checks of one member share.
#[derive(Debug)]
struct Shared {
    common: Checks,
    watch: RefCell<Watch>,
    prober: Prober,
    /// The member's first process.
    init: i32,
    /// Told whenever others may begin.
    begin: Notify,
}

impl Checks {
    pub fn new(start: Instant, answers: mpsc::UnboundedSender<Event>) -> Self {
        Checks {
            start,
            count: Rc::default(),
            answers,
        }
    }

    /// Begins with a member that has just started. None: its task asks for no checks.
    pub fn begin(&self, member: MemberId, wanted: &Wanted, running: &Running) -> Option<Checking> {
        let watch = Watch::of(member, &wanted.task, &wanted.extra, self.start.elapsed())?;
        let entrance = match running.entrance() {
            Ok(entrance) => entrance,
            Err(error) => {
                // It has just ended.
                tracing::debug!("no checks of `{}`: {error}", wanted.task.name.escape_debug());
                return None;
            }
        };
        let (numbers, place) = (0..watch.count(), self.count.get());
        self.count.set(place + watch.count());
        let shared = Rc::new(Shared {
            common: self.clone(),
            watch: RefCell::new(watch),
            prober: Prober::new(entrance, running.network()),
            init: running.pid(),
            begin: Notify::new(),
        });
        let mut tasks = JoinSet::new();
        for number in numbers {
            tasks.spawn_local(shared.clone().go_on(number, place + number));
        }
        Some(Checking {
            count: self.count.clone(),
            tasks,
        })
    }
}

impl Drop for Checking {
    fn drop(&mut self) {
        self.count.set(self.count.get().saturating_sub(self.tasks.len()));
    }
}

impl Shared {
    async fn go_on(self: Rc<Self>, number: usize, place: usize) {
        let mut due = loop {
            let first = self.watch.borrow().first(number, place);
            match first {
                Some(first) => break Some(first),
                None => self.begin.notified().await,
            }
        };
        let mut complained = false;
        while let Some(at) = due {
            tokio::time::sleep_until((self.common.start + at).into()).await;
            let Some(probe) = self.watch.borrow().probe(number) else {
                return;
            };
            let timeout = self.watch.borrow().timeout(number);
            // Big, and mostly not there.
            let seen = Box::pin(self.prober.look(&probe, timeout)).await;
            self.note(&probe, &seen, &mut complained);
            let now = self.common.start.elapsed();
            let events = self.watch.borrow_mut().seen(number, now, &seen);
            if !events.is_empty() && probe.judge(&seen.sight) == Outcome::Bad {
                tokio::time::sleep(LAST_LOOK).await;
                // On a busy machine that takes longer.
                let mut left = LONGEST_END.as_millis() / LAST_LOOK.as_millis();
                while left > 0 && is_ending(self.init) {
                    tokio::time::sleep(LAST_LOOK).await;
                    left -= 1;
                }
            }
            for event in events {
                // The shell outlives its keepers, and those their checks.
                let _ = self.common.answers.send(event);
            }
            due = self.watch.borrow().next(number, now);
        }
        self.begin.notify_waiters();
    }

    /// What does not count is told here or nowhere; once, until it is over.
    fn note(&self, probe: &Probe, seen: &Seen, complained: &mut bool) {
        let untried = matches!(seen.sight, Sight::Untried(_));
        if untried && !*complained {
            let member = self.prober.member();
            tracing::warn!("member `{member}` cannot be checked: {}", probe.sentence(seen));
        }
        *complained = untried;
    }
}

/// Whether the command of the member with this init has ended, though nobody has been told yet.
fn is_ending(init: i32) -> bool {
    let Ok(children) = fs::read_to_string(format!("/proc/{init}/task/{init}/children")) else {
        return true;
    };
    // `4711 (a name) Z …`
    let is_dead = |child: &str| {
        let stat = fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
        let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
        matches!(state, None | Some('Z' | 'X'))
    };
    children.split_ascii_whitespace().all(is_dead)
}
