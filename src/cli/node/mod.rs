//! `podling node`: this machine, as far as members are concerned.

mod bundle;

use std::{
    ffi::OsString,
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use anstyle::{AnsiColor, Style};
use clap::{Args, Subcommand, ValueEnum};

use super::{Ended, Failure, colour, networks, slips};
use crate::{
    container::{
        cgroup,
        host::{self, Facts, Finding, Grade},
        janitor::{self, Report},
        policy::Preset,
    },
    executor::config::{Effective, show},
    image,
};

pub(super) const EXAMPLES: &str = "\
Examples:
  podling node check                  what this machine offers, lacks, and what follows from it
  podling node check -o json          the same for programs; exit code 1 if pods cannot run
  podling node gc                     clean up after executors that were killed";

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Tell what this machine offers to members, what it lacks and what follows from that
    Check(CheckCommand),
    /// Remove what executors that died have left behind
    ///
    /// Only what they wrote down before they made it, and only if it is still the same: cgroups with the processes
    /// in them, directories, mounts, sockets, pod networks. Living executors do this too when they start.
    Gc(GcCommand),
    /// Write a task as an OCI bundle, to see it or to start it with another runtime
    Bundle(bundle::BundleCommand),
}

impl Command {
    pub(super) fn run(self) -> Ended {
        match self {
            Command::Check(command) => command.run(),
            Command::Gc(command) => command.run(),
            Command::Bundle(command) => command.run(),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Json,
}

#[derive(Debug, Args)]
pub(super) struct CheckCommand {
    /// How to print it
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

impl CheckCommand {
    /// Exit code 1 if members cannot run here as asked.
    fn run(self) -> Ended {
        // As the executors of this node would be.
        let variables: Vec<_> = std::env::vars_os().collect();
        let (cgroups, settings, policy) = match Effective::load(&variables) {
            Ok(effective) => (
                effective.config.cgroups.clone(),
                settings(&effective, &variables),
                Some(policy(&effective)),
            ),
            Err(error) => (cgroup::Config::default(), broken(&Failure::from(error)), None),
        };
        let mut findings = vec![settings];
        findings.extend(policy);
        findings.extend(host::findings(&Facts::gather(&cgroups)));
        networks::findings(&mut findings)?;
        let overall = host::overall(&findings);
        let mut out = io::stdout().lock();
        match self.output {
            Output::Json => {
                let report = serde_json::json!({ "grade": overall, "findings": findings });
                serde_json::to_writer_pretty(&mut out, &report)?;
                writeln!(out)?;
            }
            Output::Table => print(&mut out, &findings, overall)?,
        }
        Ok(match overall {
            Grade::Good | Grade::Lesser => ExitCode::SUCCESS,
            Grade::Missing => ExitCode::FAILURE,
        })
    }
}

fn settings(effective: &Effective, variables: &[(OsString, OsString)]) -> Finding {
    let changed: Vec<_> = effective.changed().map(|(key, ..)| key).collect();
    let mut found = match changed.as_slice() {
        [] => "as they come".to_owned(),
        changed => format!("changed: {}", changed.join(", ")),
    };
    let slips = slips::of(variables);
    for slip in &slips {
        found.push_str(&format!("; {slip}"));
    }
    Finding {
        name: "settings",
        grade: if slips.is_empty() {
            Grade::Good
        } else {
            Grade::Lesser
        },
        found,
        consequence: (!slips.is_empty()).then_some("a setting that somebody wanted has no effect"),
    }
}

/// What tasks may ask for, in the words of the settings.
fn policy(effective: &Effective) -> Finding {
    let policy = &effective.config.members.defaults.policy;
    let may = |allowed: bool, what: &str| match allowed {
        true => what.to_owned(),
        false => format!("no {what}"),
    };
    let found = [
        format!(
            "{}: capabilities {}",
            policy.preset.name(),
            show::capabilities(policy.capabilities())
        ),
        format!("seccomp {}", show::filters(policy.filters())),
        format!("host volumes {}", show::host_volumes(&policy.host_volumes())),
        may(policy.host_network(), "host network"),
        may(policy.host_ipc(), "host IPC"),
        may(policy.shared_pid(), "shared pid"),
        may(policy.root(), "root"),
    ];
    Finding {
        name: "policy",
        grade: Grade::Good,
        found: found.join("; "),
        consequence: (policy.preset == Preset::Mesos)
            .then_some("who may launch tasks here may be root of this node; `policy` says so"),
    }
}

fn broken(why: &Failure) -> Finding {
    Finding {
        name: "settings",
        grade: Grade::Missing,
        found: why.to_string(),
        consequence: Some("no executor starts on this node"),
    }
}

#[derive(Debug, Args)]
pub(super) struct GcCommand {
    /// Where executors of this node keep their register
    #[arg(long, env = "PODLING_RUN_DIR", default_value = "/run/podling")]
    run_dir: PathBuf,
    /// Also remove bridges and rules of pods' networks, if no pod of this node lives
    #[arg(long)]
    network: bool,
    /// How to print it
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

impl GcCommand {
    /// Exit code 1 if something could not be removed.
    fn run(self) -> Ended {
        let mut report = janitor::sweep(&self.run_dir)?;
        // Their processes are gone by now, and with them the namespaces' last users.
        networks::clean_up(&self.run_dir, self.network, &mut report)?;
        // As the executors of this node have it; where their settings are broken, none of them starts.
        let variables: Vec<_> = std::env::vars_os().collect();
        let store = Effective::load(&variables)?.config.images.store;
        match image::drop_dead_leases(&store) {
            Ok(gone) => report.removed.extend(gone),
            Err(error) => report.failed.push(janitor::Failed {
                path: store,
                reason: Failure::from(error).to_string(),
            }),
        }
        let (gone, stays) = super::up::sweep(&std::env::temp_dir());
        report.removed.extend(gone);
        report
            .failed
            .extend(stays.into_iter().map(|(path, error)| janitor::Failed {
                path,
                reason: error.to_string(),
            }));
        let mut out = io::stdout().lock();
        match self.output {
            Output::Json => {
                serde_json::to_writer_pretty(&mut out, &report)?;
                writeln!(out)?;
            }
            Output::Table => print_report(&mut out, &report)?,
        }
        Ok(match report.failed.is_empty() {
            true => ExitCode::SUCCESS,
            false => ExitCode::FAILURE,
        })
    }
}

fn print_report(out: &mut impl Write, report: &Report) -> io::Result<()> {
    for path in &report.removed {
        writeln!(out, "removed  {}", path.display())?;
    }
    for path in &report.foreign {
        writeln!(
            out,
            "left     {}: no longer what the executor made",
            path.display()
        )?;
    }
    for failed in &report.failed {
        writeln!(out, "failed   {}: {}", failed.path.display(), failed.reason)?;
    }
    writeln!(
        out,
        "{} executors alive, {} dead ones cleaned up after, {} pod networks taken back.",
        report.alive,
        report.cleaned.len(),
        report.networks
    )
}

fn print(out: &mut impl Write, findings: &[Finding], overall: Grade) -> io::Result<()> {
    let colour = colour::is_wanted();
    let width = findings
        .iter()
        .map(|finding| finding.name.len())
        .max()
        .unwrap_or(0);
    for finding in findings {
        let (word, style) = match finding.grade {
            Grade::Good => ("good", AnsiColor::Green.on_default()),
            Grade::Lesser => ("lesser", AnsiColor::Yellow.on_default()),
            Grade::Missing => ("missing", AnsiColor::Red.on_default()),
        };
        let style = if colour { style } else { Style::new() };
        write!(
            out,
            "{style}{word:<7}{style:#}  {:<width$}  {}",
            finding.name, finding.found
        )?;
        match finding.consequence {
            Some(consequence) => writeln!(out, "\n{:indent$}→ {consequence}", "", indent = 11 + width)?,
            None => writeln!(out)?,
        }
    }
    let sum = match overall {
        Grade::Good => "Members have all they may ask for.",
        Grade::Lesser => "Members run here, with the limitations above.",
        Grade::Missing => "Members cannot run here as asked: see what is missing above.",
    };
    writeln!(out, "\n{sum}")
}
