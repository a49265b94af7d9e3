//! The end of an executor that nobody planned.
//!
//! A panic is a mistake of ours, and whoever has made one mistake is not to be trusted with root: the executor ends at
//! once, its members with it, as they do whatever it dies of. Before that it says where.
//!
//! And crash points: a test may end the process, as a power cut would, between any two effects.
//! `PODLING_CRASH_BEFORE_EFFECT=7` lets six effects happen; `panic:7` panics then. Only debug builds look at it.

use std::{fs::File, io::Write as _, panic::PanicHookInfo, sync::Mutex, time::Instant};

pub const VARIABLE: &str = "PODLING_CRASH_BEFORE_EFFECT";

/// The black box as the hook has it; rewritten when that turns over.
static BOX: Mutex<Option<File>> = Mutex::new(None);

/// From now on a panic, on whatever thread, is told and ends the process.
pub fn end_on_panic(start: Instant) {
    std::panic::set_hook(Box::new(move |panic| {
        let told = told(panic);
        eprintln!("podling-executor: a mistake of ours ends this executor and its members: {told}");
        // Whoever panics may hold it.
        if let Ok(mut file) = BOX.try_lock()
            && let Some(file) = file.as_mut()
        {
            let us = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);
            let line = serde_json::json!({ "us": us, "cause": "panic", "message": told });
            let _ = file.write_all(format!("{line}\n").as_bytes());
        }
        // No core of what we know.
        let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
        std::process::abort();
    }));
}

/// Where that is told, too.
pub fn tell_black_box(file: Option<&File>) {
    if let Ok(mut held) = BOX.lock() {
        *held = file.and_then(|file| file.try_clone().ok());
    }
}

/// Where, and why as far as that was known when we were built: anything else may quote what is nobody's business.
fn told(panic: &PanicHookInfo<'_>) -> String {
    let place = panic
        .location()
        .map_or("nowhere".to_owned(), |at| format!("{}:{}", at.file(), at.line()));
    match panic.payload().downcast_ref::<&'static str>() {
        Some(why) => format!("{place}: {why}"),
        None => place,
    }
}

#[derive(Debug)]
pub struct CrashPoints {
    #[cfg(debug_assertions)]
    left: Option<u64>,
    #[cfg(debug_assertions)]
    panics: bool,
}

impl CrashPoints {
    pub fn from_environment() -> Self {
        #[cfg(debug_assertions)]
        let wanted = std::env::var(VARIABLE).ok();
        #[cfg(debug_assertions)]
        let (panics, count) = match wanted.as_deref().map(|text| (text.strip_prefix("panic:"), text)) {
            Some((Some(count), _)) => (true, Some(count)),
            Some((None, count)) => (false, Some(count)),
            None => (false, None),
        };
        CrashPoints {
            #[cfg(debug_assertions)]
            left: count.and_then(|count| count.parse().ok()),
            #[cfg(debug_assertions)]
            panics,
        }
    }

    /// Called before each effect.
    #[inline]
    #[allow(clippy::panic)]
    pub fn before_effect(&mut self) {
        #[cfg(debug_assertions)]
        if let Some(left) = &mut self.left {
            *left = left.saturating_sub(1);
            if *left == 0 && self.panics {
                panic!("a crash point");
            }
            if *left == 0 {
                let _ =
                    rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
            }
        }
    }
}
