//! What benchmarks print and keep.

use std::{env, fmt, fs, path::Path, thread, time::Duration};

use serde_json::{Map, Value, json};

/// Results by what was measured.
#[derive(Default)]
pub struct Figures(Map<String, Value>);

impl Figures {
    pub fn report(&mut self, what: &str, mut micros: Vec<u64>) {
        micros.sort_unstable();
        let at = |part: f64| micros[((micros.len() - 1) as f64 * part).round() as usize] as f64 / 1000.0;
        println!(
            "{what}: p50 {:.2} ms, p99 {:.2} ms, least {:.2} ms",
            at(0.5),
            at(0.99),
            at(0.0)
        );
        self.keep(format!("{what}, us"), json!(micros));
    }

    pub fn keep(&mut self, what: impl Into<String>, value: Value) {
        self.0.insert(what.into(), value);
    }

    /// Writes them, with the machine they come from, to `benches/results`.
    pub fn save(&self, file: &str, runs: usize) {
        let machine = rustix::system::uname();
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let all = json!({
            "kernel": machine.release().to_string_lossy(),
            "processors": thread::available_parallelism().map_or(0, usize::from),
            "load": load.trim(),
            "runs": runs,
            "note": env::var("PODLING_BENCH_NOTE").unwrap_or_default(),
            "results": self.0,
        });
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/results");
        fs::create_dir_all(&folder).unwrap();
        let text = serde_json::to_string(&all).unwrap() + "\n";
        fs::write(folder.join(file), text).unwrap();
    }
}

pub fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap()
}

/// What a process takes, in kB.
pub struct Memory {
    pub rss: u64,
    pub private: u64,
}

impl Memory {
    pub fn of(pid: u32) -> Self {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
        let of = |name: &str| -> u64 {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|line| line.split_whitespace().next()?.parse().ok())
                .unwrap_or(0)
        };
        Memory {
            rss: of("Rss:"),
            private: of("Private_Clean:") + of("Private_Dirty:"),
        }
    }

    pub fn json(&self) -> Value {
        json!({ "rss": self.rss, "private": self.private })
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:.2} MB resident, {:.2} MB private",
            self.rss as f64 / 1e3,
            self.private as f64 / 1e3
        )
    }
}
