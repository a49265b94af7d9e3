//! `podling image`: the images of this node, in the store that its executors share.

use std::{
    collections::HashMap,
    ffi::OsString,
    io::{self, IsTerminal, Write},
    path::PathBuf,
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use clap::{Args, Subcommand, ValueEnum};
use comfy_table::{CellAlignment, Table, presets};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use super::{Ended, Failure};
use crate::{
    executor::config::{Effective, FILE_VARIABLE},
    image::{
        Credentials, Digest, Keep, Known, Observer, OperatorConfig, Platform, Progress, PullOptions,
        Reference, Store,
    },
};

pub(super) const EXAMPLES: &str = "\
Examples:
  podling image pull docker://python:3.12-alpine     before the first pod needs it
  podling image list                                 what is there, how large, last used when
  podling image gc                                   down to the operator's quota";

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Bring an image to this node, or bring it up to date
    Pull(Pull),
    /// Tell what images there are
    #[command(alias = "ls")]
    List(List),
    /// Check that images are whole and what their digests say
    Verify(Verify),
    /// Remove images that are not in use
    Rm(Remove),
    /// Remove what is not in use: down to the operator's quota, or more
    Gc(Collect),
}

impl Command {
    pub(super) fn run(self) -> Ended {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            match self {
                Command::Pull(command) => command.run().await,
                Command::List(command) => command.run().await,
                Command::Verify(command) => command.run().await,
                Command::Rm(command) => command.run().await,
                Command::Gc(command) => command.run().await,
            }
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Json,
}

/// A file that was named is at fault, with all that is known about it.
fn misused(error: impl std::error::Error + Send + Sync + 'static) -> Failure {
    Failure::usage(Failure::from(error))
}

/// Where the store is and how it is printed.
#[derive(Debug, Args)]
struct Common {
    /// Directory of the image store, instead of the configured one
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
    /// The operator's configuration, which executors read, too [default: /etc/podling/executor.toml]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// How to print
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

impl Common {
    fn operator(&self) -> Result<OperatorConfig, Failure> {
        let mut variables: Vec<(OsString, OsString)> = std::env::vars_os().collect();
        if let Some(path) = &self.config {
            variables.retain(|(name, _)| name != FILE_VARIABLE);
            variables.push((FILE_VARIABLE.into(), path.into()));
        }
        let effective = Effective::load(&variables).map_err(misused)?;
        let mut operator = effective.config.images;
        if let Some(store) = &self.store {
            operator.store.clone_from(store);
        }
        Ok(operator)
    }

    fn open(&self) -> Result<(Store, OperatorConfig), Failure> {
        let operator = self.operator()?;
        let store = Store::open(operator.store()?)?;
        Ok((store, operator))
    }

    fn print_json(value: &serde_json::Value) -> io::Result<()> {
        let mut out = io::stdout().lock();
        serde_json::to_writer_pretty(&mut out, value)?;
        writeln!(out)
    }
}

#[derive(Debug, Args)]
pub(super) struct Pull {
    /// Image: [registry/]repository[:tag][@digest], oci:DIRECTORY[:TAG], oci-archive:FILE[:TAG] or docker-archive:FILE[:REFERENCE]
    #[arg(required = true, value_name = "REF")]
    references: Vec<Reference>,
    /// Take what the node has, if it has it
    #[arg(long)]
    cached: bool,
    /// For another platform than this one: os/architecture[/variant]
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<Platform>,
    /// Credentials in the form of docker's config.json
    #[arg(long, value_name = "FILE")]
    authfile: Option<PathBuf>,
    /// Speak to these registries without TLS
    #[arg(long, value_name = "HOST[:PORT]")]
    insecure: Vec<String>,
    #[command(flatten)]
    common: Common,
}

impl Pull {
    async fn run(self) -> Ended {
        let mut operator = self.common.operator()?;
        operator.insecure.extend(self.insecure);
        let store = Store::open(operator.store()?)?;
        let credentials = match &self.authfile {
            Some(path) => Some(Credentials::load(path).map_err(misused)?),
            None => None,
        };
        let mut pulled = Vec::new();
        let here = std::env::current_dir()?;
        for reference in self.references {
            let reference = reference.absolute(&here);
            let drawn = Drawn::new(&reference.to_string());
            let options = PullOptions {
                force: !self.cached,
                credentials: credentials.clone(),
                platform: self.platform.clone().unwrap_or_else(Platform::host),
                progress: drawn.observer(),
            };
            let image = store.resolve_and_pull(&reference, &options).await;
            drawn.end();
            let image = image?;
            // The command's end must not be the end of what it brought.
            store.settle(&image).await?;
            if self.common.output == Output::Table {
                println!("{reference}  {}", image.digest());
            }
            pulled.push(json!({
                "reference": reference.to_string(), "digest": image.digest(), "bytes": image.transfer_size(),
            }));
        }
        if self.common.output == Output::Json {
            Common::print_json(&json!(pulled))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// A bar on a terminal, nothing elsewhere.
struct Drawn {
    bar: ProgressBar,
    layers: Arc<Mutex<HashMap<Digest, (u64, u64)>>>,
}

impl Drawn {
    fn new(name: &str) -> Drawn {
        let bar = if io::stderr().is_terminal() {
            ProgressBar::new(0)
        } else {
            ProgressBar::hidden()
        };
        let style =
            ProgressStyle::with_template("{prefix}  {bar:30} {bytes}/{total_bytes} {bytes_per_sec} {msg}");
        if let Ok(style) = style {
            bar.set_style(style.progress_chars("━╸─"));
        }
        bar.set_prefix(name.to_owned());
        bar.enable_steady_tick(Duration::from_millis(200));
        Drawn {
            bar,
            layers: Arc::default(),
        }
    }

    fn observer(&self) -> Observer {
        let (bar, layers) = (self.bar.clone(), self.layers.clone());
        Observer::new(move |progress| {
            let mut layers = layers.lock().unwrap_or_else(PoisonError::into_inner);
            match progress {
                Progress::Layer { digest, size } => drop(layers.insert(digest, (0, size))),
                Progress::Transferred { digest, bytes } => {
                    layers.entry(digest).and_modify(|(done, _)| *done = bytes);
                }
                Progress::Present { digest } | Progress::Done { digest } => {
                    layers.entry(digest).and_modify(|(done, size)| *done = *size);
                }
                Progress::Waiting { .. } => bar.set_message("(another process is at it)"),
            }
            let (done, size) = layers
                .values()
                .fold((0, 0), |(done, size), layer| (done + layer.0, size + layer.1));
            let ready = layers.values().filter(|(done, size)| done == size).count();
            bar.set_length(size);
            bar.set_position(done);
            bar.set_message(format!("{ready} of {} layers", layers.len()));
        })
    }

    fn end(&self) {
        self.bar.finish_and_clear();
    }
}

#[derive(Debug, Args)]
pub(super) struct List {
    #[command(flatten)]
    common: Common,
}

impl List {
    async fn run(self) -> Ended {
        let (store, _) = self.common.open()?;
        let known = store.list().await?;
        if self.common.output == Output::Json {
            Common::print_json(&json!(known))?;
            return Ok(ExitCode::SUCCESS);
        }
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_header([
            "IMAGE",
            "DIGEST",
            "PLATFORM",
            "LAYERS",
            "SIZE",
            "LAST USED",
            "IN USE",
        ]);
        for image in &known {
            table.add_row([
                image.references.first().map_or("-", String::as_str).to_owned(),
                short(&image.digest),
                image.platform.clone(),
                image.layers.to_string(),
                size(image.bytes),
                ago(image.last_used),
                if image.in_use { "yes" } else { "" }.to_owned(),
            ]);
            for other in image.references.iter().skip(1) {
                table.add_row([other.as_str()]);
            }
        }
        for column in [3, 4] {
            if let Some(column) = table.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        println!("{}", table.trim_fmt());
        Ok(ExitCode::SUCCESS)
    }
}

#[derive(Debug, Args)]
pub(super) struct Verify {
    /// References or digests; without any, all images
    #[arg(value_name = "REF")]
    references: Vec<String>,
    #[command(flatten)]
    common: Common,
}

impl Verify {
    /// Exit code 1 if something is wrong.
    async fn run(self) -> Ended {
        let (store, _) = self.common.open()?;
        let known = store.list().await?;
        let wanted = match self.references.is_empty() {
            true => known.iter().collect(),
            false => select(&known, &self.references)?,
        };
        let (mut damaged, mut reports) = (0, Vec::new());
        for image in wanted {
            let report = store.verify(image.digest).await?;
            damaged += usize::from(!report.is_whole());
            if self.common.output == Output::Table {
                let name = image
                    .references
                    .first()
                    .map_or_else(|| image.digest.to_string(), Clone::clone);
                match report.is_whole() {
                    true => println!("{name}: whole, {} checked", count(report.files, "file")),
                    false => {
                        println!("{name}: damaged");
                        for problem in &report.problems {
                            println!("  {problem}");
                        }
                    }
                }
            }
            reports.push(json!({ "digest": image.digest, "references": image.references, "report": report }));
        }
        if self.common.output == Output::Json {
            Common::print_json(&json!(reports))?;
        }
        Ok(if damaged == 0 {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }
}

#[derive(Debug, Args)]
pub(super) struct Remove {
    /// References or digests
    #[arg(required = true, value_name = "REF")]
    references: Vec<String>,
    #[command(flatten)]
    common: Common,
}

impl Remove {
    async fn run(self) -> Ended {
        let (store, _) = self.common.open()?;
        let known = store.list().await?;
        // All or nothing: whatever is unknown or in use is told before anything goes.
        let wanted = select(&known, &self.references)?;
        if let Some(image) = wanted.iter().find(|image| image.in_use) {
            return Err(Failure::failed(format!("image {} is in use", image.digest)));
        }
        let mut removed = Vec::new();
        for image in wanted {
            let Some(collected) = store.forget(image.digest).await? else {
                return Err(Failure::failed(format!("image {} is in use", image.digest)));
            };
            if self.common.output == Output::Table {
                println!("removed {}, {} freed", image.digest, size(collected.freed));
            }
            removed.push(json!({ "digest": image.digest, "freed": collected.freed }));
        }
        if self.common.output == Output::Json {
            Common::print_json(&json!(removed))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

#[derive(Debug, Args)]
pub(super) struct Collect {
    /// Remove every image that is not in use
    #[arg(long, conflicts_with = "keep_mb")]
    all: bool,
    /// Keep the most recently used images up to so many megabytes, instead of the configured quota
    #[arg(long, value_name = "MB")]
    keep_mb: Option<u64>,
    #[command(flatten)]
    common: Common,
}

impl Collect {
    async fn run(self) -> Ended {
        let (store, operator) = self.common.open()?;
        let keep_bytes = self.keep_mb.map(|mb| mb.saturating_mul(1 << 20));
        let keep = match (
            self.all,
            keep_bytes.or_else(|| operator.quota.bytes(&operator.store)),
        ) {
            (true, _) => Keep::InUse,
            (false, Some(bytes)) => Keep::Bytes(bytes),
            (false, None) => Keep::AllImages,
        };
        let collected = store.collect(keep).await?;
        match self.common.output {
            Output::Json => Common::print_json(&json!(collected))?,
            Output::Table => println!(
                "removed {} and {}, {} freed, {} left",
                count(collected.images, "image"),
                count(collected.layers, "layer"),
                size(collected.freed),
                size(collected.left)
            ),
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// The images that are meant, by reference as it was pulled or in any equal spelling, or by digest.
fn select<'a>(known: &'a [Known], names: &[String]) -> Result<Vec<&'a Known>, Failure> {
    let here = std::env::current_dir().ok();
    let mut selected: Vec<&Known> = Vec::new();
    for name in names {
        let full = name.parse::<Reference>().map(|reference| match &here {
            Some(here) => reference.absolute(here).to_string(),
            None => reference.to_string(),
        });
        let digest = name.parse::<Digest>();
        let is_meant = |image: &&Known| {
            digest.as_ref().is_ok_and(|digest| *digest == image.digest)
                || full.as_ref().is_ok_and(|full| image.references.contains(full))
        };
        let before = selected.len();
        for image in known.iter().filter(is_meant) {
            if !selected.iter().any(|other| other.digest == image.digest) {
                selected.push(image);
            }
        }
        let meant_before = selected.iter().copied().any(|image| is_meant(&image));
        if selected.len() == before && !meant_before {
            return Err(Failure::failed(format!("there is no image {name} on this node")));
        }
    }
    Ok(selected)
}

fn short(digest: &Digest) -> String {
    digest.to_string().chars().take("sha256:".len() + 12).collect()
}

/// `1 layer`, `2 layers`.
fn count(number: impl TryInto<u64>, what: &str) -> String {
    match number.try_into().unwrap_or(u64::MAX) {
        1 => format!("1 {what}"),
        number => format!("{number} {what}s"),
    }
}

fn size(bytes: u64) -> String {
    indicatif::HumanBytes(bytes).to_string()
}

fn ago(seconds: u64) -> String {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    let ago = Duration::from_secs(now.saturating_sub(seconds));
    format!("{} ago", indicatif::HumanDuration(ago))
}
