//! Network namespaces held by descriptors.
//!
//! A namespace belongs to a thread, so everything here that has to be inside one runs on a fresh thread that ends
//! right after: no thread of the runtime ever changes its own. Sockets keep the namespace they were made in, which is
//! how the work goes on from outside.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, OwnedFd},
    thread,
};

use nix::sched::{CloneFlags, setns, unshare};

/// Enough for a few system calls and file writes.
const STACK: usize = 128 << 10;

/// Makes a namespace and runs `inside` in it, on a thread of its own. The namespace lives as long as the descriptor, a
/// process or a socket in it.
pub fn create<T: Send + 'static>(
    inside: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<(OwnedFd, T)> {
    on_thread(move || {
        unshare(CloneFlags::CLONE_NEWNET)?;
        Ok((current()?, inside()?))
    })
}

/// Runs `inside` in an existing namespace, on a thread of its own.
pub fn enter<T: Send + 'static>(
    namespace: impl AsFd,
    inside: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let namespace = namespace.as_fd().try_clone_to_owned()?;
    on_thread(move || {
        setns(&namespace, CloneFlags::CLONE_NEWNET)?;
        drop(namespace);
        inside()
    })
}

/// The same without blocking: the thread that asks goes on meanwhile.
pub async fn visit<T: Send + 'static>(
    namespace: impl AsFd,
    inside: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let namespace = namespace.as_fd().try_clone_to_owned()?;
    let (answer, coming) = tokio::sync::oneshot::channel();
    thread_for(move || {
        let done = setns(&namespace, CloneFlags::CLONE_NEWNET)
            .map_err(io::Error::from)
            .and_then(|()| inside());
        // Whoever asked may have given up.
        let _ = answer.send(done);
    })?;
    coming.await.unwrap_or_else(|_| Err(broke_down()))
}

/// The calling thread's own.
pub fn current() -> io::Result<OwnedFd> {
    Ok(File::open("/proc/thread-self/ns/net")?.into())
}

pub(super) fn on_thread<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    thread_for(work)?.join().unwrap_or_else(|_| Err(broke_down()))
}

fn thread_for<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<thread::JoinHandle<T>> {
    let thread = thread::Builder::new().name("namespace".to_owned());
    thread.stack_size(STACK).spawn(work)
}

fn broke_down() -> io::Error {
    io::Error::other("the thread for a namespace broke down")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn identity(namespace: &OwnedFd) -> u64 {
        File::from(namespace.try_clone().unwrap())
            .metadata()
            .unwrap()
            .ino()
    }

    #[test]
    fn the_caller_stays_where_it_is() {
        let before = identity(&current().unwrap());
        let (namespace, inside) = create(|| Ok(identity(&current()?))).unwrap();
        assert_eq!(inside, identity(&namespace));
        assert_ne!(inside, before);
        assert_eq!(enter(&namespace, || Ok(identity(&current()?))).unwrap(), inside);
        assert_eq!(identity(&current().unwrap()), before);
    }

    #[tokio::test]
    async fn a_visit_is_made_by_another_thread() {
        let before = identity(&current().unwrap());
        let (namespace, inside) = create(|| Ok(identity(&current()?))).unwrap();
        assert_eq!(
            visit(&namespace, || Ok(identity(&current()?))).await.unwrap(),
            inside
        );
        assert_eq!(identity(&current().unwrap()), before);
        let refused: io::Result<()> = visit(&namespace, || Err(io::ErrorKind::AddrInUse.into())).await;
        assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }
}
