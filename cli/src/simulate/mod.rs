//! `stampede simulate`.
use crate::output::Output;
/// Args.
#[derive(Debug, clap::Args)]
pub struct Args {}
/// Runs.
pub async fn run(_args: Args, _output: Output) -> anyhow::Result<bool> {
    Ok(true)
}
