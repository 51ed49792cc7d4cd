//! The description of the API: `cargo xtask openapi` writes the copy in docs/, and `cargo xtask test openapi` holds a
//! mesh against it.

mod trial;

use crate::{cli::Profile, mesh, setup, shell, ui::say, workspace::Workspace};
use anyhow::Context;
use std::{fs, process::Command};

pub use crate::openapi::trial::{NAME, RUN, run};

/// The copy, from the root of the repository. A test of the gateway fails if the gateway serves another text.
const COPY: &str = "docs/openapi.json";

/// Writes the description that a gateway of this tree serves.
pub fn write(workspace: &Workspace) -> anyhow::Result<()> {
    setup::compiler()?;
    let program = mesh::build(workspace, Profile::Dev)?;
    let text = shell::quiet(Command::new(program).arg("openapi"))?;
    let path = workspace.root().join(COPY);
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    say(&format!("{COPY} is what the gateway serves"));
    Ok(())
}
