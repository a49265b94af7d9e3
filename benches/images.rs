//! Pull + verify + unpack against `tar xzf` of the same layers, skopeo + umoci, and podman: 4 layers of about 150 MB
//! packed with about 20,000 files, from docker-registry on loopback, in turns within one run, with pauses between.
//! Then what a start with a known image costs, and collecting it. `cargo bench --bench images [ROUNDS]`, as root.
//!
//! The result is printed and kept in `benches/results/`.

// The makers of test images are shared with the tests.
#![allow(clippy::unwrap_used)]

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use podling::{
    image::{Digest, Keep, PullOptions, Store, StoreConfig},
    sys::held::Held,
};
use serde_json::{Value, json};

#[path = "../tests/images/build.rs"]
#[allow(dead_code)]
mod build;
#[path = "../tests/images/registry.rs"]
#[allow(dead_code)]
mod registry;

const LAYERS: usize = 4;
const FILES: usize = 20_000;
const PAUSE: Duration = Duration::from_millis(150);

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| !a.starts_with("--"))
        .collect();
    match arguments.first().map(String::as_str) {
        // The measured program is a process of its own, so that its memory is only its own.
        Some("pull") => pull_once(&arguments[1], Path::new(&arguments[2])),
        Some(rounds) => compare(rounds.parse()?),
        None => compare(4),
    }
}

fn runtime() -> Outcome<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?)
}

fn pull_once(reference: &str, root: &Path) -> Outcome<()> {
    let start = Instant::now();
    let store = Store::open(StoreConfig::new(root))?;
    let idle = status_kb("VmRSS:")?;
    runtime()?.block_on(async {
        let image = store
            .resolve_and_pull(&reference.parse()?, &PullOptions::default())
            .await?;
        let took = start.elapsed();
        store.settle(&image).await?;
        let durable = start.elapsed();
        drop(image);
        tokio::time::sleep(Duration::from_secs(1)).await;
        let report = json!({
            "ms": millis(took), "durable_ms": millis(durable), "peak_kb": status_kb("VmHWM:")?,
            "before_kb": idle, "after_kb": status_kb("VmRSS:")?,
        });
        println!("{report}");
        Ok(())
    })
}

fn status_kb(field: &str) -> Outcome<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(field))
        .ok_or("no such field")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e5).round() / 100.0
}

fn compare(rounds: usize) -> Outcome<()> {
    let work = tempfile::tempdir()?;
    eprintln!("making {LAYERS} layers with {FILES} files");
    let layers: Vec<Vec<u8>> = (0..LAYERS).map(layer).collect();
    let unpacked: usize = layers.iter().map(Vec::len).sum();
    let image = build::TestImage::docker(layers);
    let packed: Vec<PathBuf> = image_layers(&image, work.path())?;
    let size: u64 = packed
        .iter()
        .map(|path| fs::metadata(path).map_or(0, |m| m.len()))
        .sum();
    let registry = registry::DockerRegistry::start();
    registry.push("bench", "x", &image);
    let reference = format!("{}/bench:x", registry.address);
    let mut results = serde_json::Map::new();
    let mut times: Vec<(&str, Vec<f64>)> = Vec::new();
    let mut record = |name: &'static str, ms: f64| match times.iter_mut().find(|(n, _)| *n == name) {
        Some((_, list)) => list.push(ms),
        None => times.push((name, vec![ms])),
    };
    let scratch = |name: &str| work.path().join(name);
    let mut last = Value::Null;
    for round in 0..=rounds {
        // The first round only warms the page cache.
        let mut keep = |name: &'static str, ms: f64| {
            if round > 0 {
                record(name, ms);
            }
        };
        std::thread::sleep(PAUSE);
        last = ours(&reference, &scratch("ours"))?;
        keep("podling", last["ms"].as_f64().unwrap_or_default());
        keep(
            "podling to the disk",
            last["durable_ms"].as_f64().unwrap_or_default(),
        );
        fs::remove_dir_all(scratch("ours"))?;
        sync()?;
        std::thread::sleep(PAUSE);
        keep(
            "tar xzf, one after the other",
            untar(&packed, &scratch("tar"), false)?,
        );
        fs::remove_dir_all(scratch("tar"))?;
        sync()?;
        std::thread::sleep(PAUSE);
        keep("tar xzf, all at once", untar(&packed, &scratch("tar"), true)?);
        fs::remove_dir_all(scratch("tar"))?;
        sync()?;
        if round <= 2 {
            std::thread::sleep(PAUSE);
            if let Some(ms) = skopeo_umoci(&reference, &scratch("umoci"))? {
                keep("skopeo copy + umoci unpack", ms);
            }
            let _ = fs::remove_dir_all(scratch("umoci"));
            sync()?;
            std::thread::sleep(PAUSE);
            if let Some(ms) = podman(&reference, &scratch("podman"))? {
                keep("podman pull", ms);
            }
            sync()?;
        }
    }
    let base = median(&times[0].1);
    println!(
        "\n{LAYERS} layers, {} MB packed, {} MB unpacked, {FILES} files",
        size >> 20,
        unpacked >> 20
    );
    println!("{:<32} {:>10} {:>10} {:>8}", "", "median ms", "min ms", "ratio");
    for (name, list) in &times {
        let (median, min) = (median(list), list.iter().copied().fold(f64::MAX, f64::min));
        println!("{name:<32} {median:>10.0} {min:>10.0} {:>8.2}", median / base);
        results.insert(
            (*name).to_owned(),
            json!({ "median_ms": median, "min_ms": min, "all_ms": list }),
        );
    }
    println!(
        "memory: peak {} MB, {} MB before, {} MB a second after",
        number(&last, "peak_kb") / 1024,
        number(&last, "before_kb") / 1024,
        number(&last, "after_kb") / 1024
    );
    results.insert("memory".to_owned(), last);
    known(&reference, &scratch("known"), &mut results)?;
    let results = json!({
        "what": "images", "packed_bytes": size, "unpacked_bytes": unpacked, "files": FILES, "rounds": rounds,
        "kernel": fs::read_to_string("/proc/sys/kernel/osrelease")?.trim(), "results": results,
    });
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/results");
    fs::create_dir_all(&directory)?;
    fs::write(
        directory.join("images.json"),
        serde_json::to_vec_pretty(&results)?,
    )?;
    Ok(())
}

fn number(value: &Value, key: &str) -> u64 {
    value[key].as_u64().unwrap_or_default()
}

fn median(list: &[f64]) -> f64 {
    let mut sorted = list.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

/// A quarter of the files and bytes: many small, some large, packing to about a third like programs do.
fn layer(number: usize) -> Vec<u8> {
    let mut layer = build::Layer::new();
    let mut random = 0x9e37_79b9_7f4a_7c15u64 ^ number as u64;
    let mut next = move || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    let words: Vec<[u8; 8]> = (0..4096).map(|_| next().to_le_bytes()).collect();
    for file in 0..FILES / LAYERS {
        let directory = format!("usr/lib/package-{number}-{}/", file / 40);
        if file % 40 == 0 {
            layer = layer.dir(&directory, 0o755);
        }
        // Sizes as in a distribution: half below 4 kB, the bytes in the few large ones.
        let size = match file % 100 {
            0 => 1_200_000,
            1..=9 => 60_000,
            10..=49 => 8_000,
            _ => 1_500,
        } + (next() % 997) as usize;
        let mut data = Vec::with_capacity(size + 8);
        while data.len() < size {
            let pick = next();
            if pick & 15 == 0 {
                data.extend_from_slice(&pick.to_le_bytes());
            } else {
                data.extend_from_slice(&words[(pick >> 8) as usize % 1024]);
            }
        }
        data.truncate(size);
        layer = layer.file(&format!("{directory}file-{file}"), data);
    }
    layer.tar()
}

fn image_layers(image: &build::TestImage, directory: &Path) -> Outcome<Vec<PathBuf>> {
    let manifest: Value = serde_json::from_slice(&image.manifest)?;
    let mut paths = Vec::new();
    for layer in manifest["layers"].as_array().ok_or("no layers")? {
        let digest = layer["digest"].as_str().ok_or("no digest")?;
        let path = directory.join(format!("{}.tar.gz", &digest[7..20]));
        fs::write(&path, &image.blobs[digest])?;
        paths.push(path);
    }
    Ok(paths)
}

fn sync() -> Outcome<()> {
    rustix::fs::syncfs(File::open("/")?)?;
    Ok(())
}

fn ours(reference: &str, root: &Path) -> Outcome<Value> {
    let output = Command::new(std::env::current_exe()?)
        .args(["pull", reference])
        .arg(root)
        .stderr(Stdio::inherit())
        .output()?;
    if !output.status.success() {
        return Err("the pull failed".into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn untar(layers: &[PathBuf], into: &Path, at_once: bool) -> Outcome<f64> {
    let start = Instant::now();
    let mut running = Vec::new();
    for (number, layer) in layers.iter().enumerate() {
        let directory = into.join(number.to_string());
        fs::create_dir_all(&directory)?;
        let mut child = Command::new("tar")
            .arg("xzf")
            .arg(layer)
            .arg("-C")
            .arg(&directory)
            .spawn()?;
        if at_once {
            running.push(child);
        } else if !child.wait()?.success() {
            return Err("tar failed".into());
        }
    }
    for mut child in running {
        child.wait()?;
    }
    Ok(millis(start.elapsed()))
}

fn skopeo_umoci(reference: &str, into: &Path) -> Outcome<Option<f64>> {
    fs::create_dir_all(into)?;
    let layout = into.join("layout");
    let start = Instant::now();
    let copied = Command::new("skopeo")
        .args(["copy", "--quiet", "--insecure-policy", "--src-tls-verify=false"])
        .arg(format!("docker://{reference}"))
        .arg(format!("oci:{}:x", layout.display()))
        .status();
    let unpacked = Command::new("umoci")
        .args(["raw", "unpack", "--image"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .arg(format!("{}:x", layout.display()))
        .arg(into.join("root"))
        .status();
    let well = copied.is_ok_and(|status| status.success()) && unpacked.is_ok_and(|status| status.success());
    Ok(well.then(|| millis(start.elapsed())))
}

fn podman(reference: &str, into: &Path) -> Outcome<Option<f64>> {
    let podman = |arguments: &[&str]| {
        Command::new("podman")
            .arg("--root")
            .arg(into.join("root"))
            .arg("--runroot")
            .arg(into.join("run"))
            .args(["--storage-driver", "overlay"])
            .args(arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
    };
    let start = Instant::now();
    let pulled = podman(&["pull", "--tls-verify=false", reference]);
    let took = millis(start.elapsed());
    let well = pulled.is_ok_and(|status| status.success());
    let _ = podman(&["system", "reset", "--force"]);
    let _ = fs::remove_dir_all(into);
    Ok(well.then_some(took))
}

/// A start with a known image, and collecting it.
fn known(reference: &str, root: &Path, results: &mut serde_json::Map<String, Value>) -> Outcome<()> {
    let store = Store::open(StoreConfig::new(root.join("store")))?;
    let runtime = runtime()?;
    let parsed = reference.parse()?;
    let options = PullOptions::default();
    let digest: Digest = runtime
        .block_on(store.resolve_and_pull(&parsed, &options))?
        .digest();
    let mut starts = Vec::new();
    let place = Held::open(root)?;
    for turn in 0..200 {
        let upper = format!("upper-{turn}");
        let start = Instant::now();
        let image = runtime.block_on(store.resolve_and_pull(&parsed, &options))?;
        let changes = image.changes(&place, &upper)?;
        let rootfs = image.rootfs(Some(&changes))?;
        starts.push(start.elapsed().as_secs_f64() * 1e3);
        drop(rootfs);
        fs::remove_dir_all(root.join(upper))?;
    }
    let start = Instant::now();
    let collected = runtime.block_on(store.collect(Keep::InUse))?;
    let collecting = millis(start.elapsed());
    starts.sort_by(f64::total_cmp);
    let (p50, p99) = (starts[starts.len() / 2], starts[starts.len() * 99 / 100]);
    println!("known image to mounted root: p50 {p50:.2} ms, p99 {p99:.2} ms");
    println!(
        "collecting {} MB in {collecting:.0} ms ({digest})",
        collected.freed >> 20
    );
    let _ = std::io::stdout().flush();
    results.insert(
        "known image to mounted root".into(),
        json!({ "p50_ms": p50, "p99_ms": p99 }),
    );
    results.insert(
        "collect".into(),
        json!({ "ms": collecting, "bytes": collected.freed }),
    );
    fs::remove_dir_all(root)?;
    Ok(())
}
