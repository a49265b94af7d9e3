//! Standard output, behind a thread of its own.
//!
//! A reader that stalls (a pager, Ctrl-S on a terminal) must hold up neither the pods nor Ctrl-C. What waits for it is
//! bounded, since members' output is read from their files only as long as there is [`Printer::room`].

use std::{
    io::{self, Write as _},
    os::fd::AsFd as _,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use tokio::{
    io::Interest,
    sync::{Notify, mpsc},
};

use crate::sys;

/// So many bytes may wait to be written before members' output stays where it is.
const WAITING: usize = 256 << 10;

#[derive(Debug)]
pub(super) struct Printer {
    /// None once closed.
    texts: Option<mpsc::UnboundedSender<String>>,
    backlog: Arc<Backlog>,
}

#[derive(Debug, Default)]
struct Backlog {
    bytes: AtomicUsize,
    /// Told whenever a text has been written.
    written: Notify,
}

impl Printer {
    pub fn start() -> io::Result<Self> {
        let (texts, queue) = mpsc::unbounded_channel();
        let backlog = Arc::new(Backlog::default());
        let theirs = backlog.clone();
        thread::Builder::new()
            .name("printer".to_owned())
            .stack_size(128 << 10)
            .spawn(move || print(queue, &theirs))?;
        Ok(Printer {
            texts: Some(texts),
            backlog,
        })
    }

    /// Whatever it is, it is written, in its turn; unless the reader is gone.
    pub fn print(&self, text: String) {
        if let Some(texts) = &self.texts
            && !text.is_empty()
        {
            self.backlog.bytes.fetch_add(text.len(), Ordering::Relaxed);
            // Fails only if the reader is gone.
            let _ = texts.send(text);
        }
    }

    /// Waits until there is room for more of what members write. May be dropped and called again.
    pub async fn room(&self) {
        while self.backlog.bytes.load(Ordering::Relaxed) > WAITING {
            self.backlog.written.notified().await;
        }
    }

    /// Waits until everything is written, or nobody reads any more.
    pub async fn close(&mut self) {
        while self.texts.as_ref().is_some_and(|texts| !texts.is_closed())
            && self.backlog.bytes.load(Ordering::Relaxed) > 0
        {
            self.backlog.written.notified().await;
        }
        self.texts = None;
    }
}

fn print(mut queue: mpsc::UnboundedReceiver<String>, backlog: &Backlog) {
    while let Some(text) = queue.blocking_recv() {
        let mut out = io::stdout().lock();
        let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
        backlog.bytes.fetch_sub(text.len(), Ordering::Relaxed);
        if written.is_err() {
            queue.close();
            backlog.bytes.store(0, Ordering::Relaxed);
        }
        backlog.written.notify_one();
    }
}

/// Waits until nobody can read our standard output any more: the other end of a pipe closed, a terminal hung up.
pub(super) async fn reader_gone() {
    let stdout = io::stdout().as_fd().try_clone_to_owned();
    // Files cannot be watched, and have no readers to lose.
    let watched = stdout.and_then(|stdout| sys::ready::watch(stdout, Interest::ERROR));
    match watched {
        Ok(watched) => {
            if watched.ready(Interest::ERROR).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
        Err(_) => std::future::pending().await,
    }
}
