//! Threads for work that blocks: unpacking and big deletes. There are few of them, with small stacks, and they end
//! when there is nothing to do, so that the executor is small again after a pull.

use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, PoisonError},
    time::Duration,
};

use tokio::sync::oneshot;

const STACK: usize = 512 << 10;
const IDLE: Duration = Duration::from_millis(500);

/// What a job knows about the thread it runs on.
#[derive(Debug, Clone, Copy)]
pub struct Worker {
    /// The thread has a umask of its own, and it is 0.
    pub own_umask: bool,
}

type Job = Box<dyn FnOnce(Worker) + Send>;

/// A bounded set of threads, started on demand.
#[derive(Debug, Clone)]
pub struct Pool {
    shared: Arc<Shared>,
}

struct Shared {
    limit: usize,
    /// Held for moments only: to take or give a job.
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    threads: usize,
    idle: usize,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}

/// The job was not finished: no thread could be had, or it panicked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a worker thread could not be started or was lost")]
pub struct Lost;

impl Pool {
    pub fn new(limit: usize) -> Pool {
        Pool {
            shared: Arc::new(Shared {
                limit: limit.max(1),
                state: Mutex::default(),
                wake: Condvar::new(),
            }),
        }
    }

    /// As many threads as there are processors, but at least two and at most four.
    pub fn for_this_machine() -> Pool {
        let processors = std::thread::available_parallelism().map_or(2, usize::from);
        Pool::new(processors.clamp(2, 4))
    }

    pub fn limit(&self) -> usize {
        self.shared.limit
    }

    /// Runs a job. It is queued at once and runs to its end even if nobody waits for the result.
    pub fn run<T, F>(&self, job: F) -> impl Future<Output = Result<T, Lost>> + use<T, F>
    where
        T: Send + 'static,
        F: FnOnce(Worker) -> T + Send + 'static,
    {
        let (done, result) = oneshot::channel();
        self.spawn(Box::new(move |worker| {
            // Nobody waits for a dropped pull.
            let _ = done.send(job(worker));
        }));
        async { result.await.map_err(|_| Lost) }
    }

    fn spawn(&self, job: Job) {
        let mut state = lock(&self.shared.state);
        state.jobs.push_back(job);
        if state.idle >= state.jobs.len() || state.threads >= self.shared.limit {
            self.shared.wake.notify_one();
            return;
        }
        let shared = self.shared.clone();
        let thread = std::thread::Builder::new()
            .name("podling-worker".into())
            .stack_size(STACK);
        match thread.spawn(move || shared.work()) {
            Ok(_) => state.threads += 1,
            // With other threads the job waits for them; alone it is dropped, which its owner notices.
            Err(_) if state.threads > 0 => {}
            Err(_) => drop(state.jobs.pop_back()),
        }
    }
}

impl Shared {
    fn work(&self) {
        let worker = Worker {
            own_umask: take_own_umask(),
        };
        let mut state = lock(&self.state);
        loop {
            if let Some(job) = state.jobs.pop_front() {
                drop(state);
                // A panic must not take the thread's place in the count with it.
                let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| job(worker)));
                state = lock(&self.state);
                continue;
            }
            state.idle += 1;
            let (woken, timeout) = self
                .wake
                .wait_timeout(state, IDLE)
                .unwrap_or_else(PoisonError::into_inner);
            state = woken;
            state.idle -= 1;
            if timeout.timed_out() && state.jobs.is_empty() {
                state.threads -= 1;
                return;
            }
        }
    }
}

fn lock(state: &Mutex<State>) -> std::sync::MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Parts this thread's umask from the process's and sets it to 0: files can then be created with their final mode.
fn take_own_umask() -> bool {
    let parted = nix::sched::unshare(nix::sched::CloneFlags::CLONE_FS).is_ok();
    if parted {
        rustix::process::umask(rustix::fs::Mode::empty());
    }
    parted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_run_on_few_threads_which_end_when_idle() {
        let pool = Pool::new(2);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        runtime.block_on(async {
            let jobs: Vec<_> = (0..50).map(|n| pool.run(move |_| n * 2)).collect();
            for (n, job) in jobs.into_iter().enumerate() {
                assert_eq!(job.await, Ok(n * 2));
            }
            assert!(lock(&pool.shared.state).threads <= 2);
            let umask = || {
                let status = std::fs::read_to_string("/proc/self/status").unwrap();
                status
                    .lines()
                    .find(|line| line.starts_with("Umask"))
                    .unwrap()
                    .to_owned()
            };
            let before = umask();
            assert!(pool.run(|worker| worker.own_umask).await.unwrap());
            assert_eq!(umask(), before);
            let panicking = pool.run(|_| {
                if std::hint::black_box(true) {
                    panic!("a job's own business");
                }
            });
            assert_eq!(panicking.await, Err(Lost));
            assert_eq!(pool.run(|_| 1).await, Ok(1));
            while lock(&pool.shared.state).threads > 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
    }
}
