//! under construction
use super::Ended;
use clap::Args;
#[derive(Debug, Args)]
pub(super) struct Pod {}
impl Pod {
    pub(super) fn run(self) -> Ended {
        Ok(std::process::ExitCode::SUCCESS)
    }
}
