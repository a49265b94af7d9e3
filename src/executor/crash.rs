//! Crash points: a test may end the process, as a power cut would, between any two effects.
//!
//! `PODLING_CRASH_BEFORE_EFFECT=7` lets six effects happen. Only debug builds look at it.

pub const VARIABLE: &str = "PODLING_CRASH_BEFORE_EFFECT";

#[derive(Debug)]
pub struct CrashPoints {
    #[cfg(debug_assertions)]
    left: Option<u64>,
}

impl CrashPoints {
    pub fn from_environment() -> Self {
        CrashPoints {
            #[cfg(debug_assertions)]
            left: std::env::var(VARIABLE).ok().and_then(|count| count.parse().ok()),
        }
    }

    /// Called before each effect.
    #[inline]
    pub fn before_effect(&mut self) {
        #[cfg(debug_assertions)]
        if let Some(left) = &mut self.left {
            *left = left.saturating_sub(1);
            if *left == 0 {
                let _ =
                    rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
            }
        }
    }
}
