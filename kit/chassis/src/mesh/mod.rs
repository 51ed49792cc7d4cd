//! Authentication between the processes of a mesh: by a shared secret, or, for tests, none.

mod signer;

use anyhow::{Context, bail};
use clap::Args;
use secrecy::{ExposeSecret, SecretString};
use stampede_identity::{Caller, Keys};
use std::sync::Arc;

pub use self::signer::Signer;

pub(crate) use self::signer::now_s;

/// Where `--help` lists these flags.
const HEADING: &str = "Mesh";

/// Authentication between processes. One of the two flags is required.
#[derive(Clone, Debug, Args)]
pub struct MeshArgs {
    /// Secret by which the processes of a mesh sign who they are and for whom they call, the same in all. It may have
    /// several keys of at least 32 bytes, one a line: the first signs, all are taken.
    #[arg(long, help_heading = HEADING, env = "STAMPEDE_MESH_SECRET", value_name = "SECRET", hide_env_values = true)]
    pub mesh_secret: Option<SecretString>,

    /// Sign nothing, and believe whoever can connect: for tests on one machine.
    #[arg(long, help_heading = HEADING, env = "STAMPEDE_INSECURE_MESH")]
    pub insecure_mesh: bool,
}

/// Trust in callers.
#[derive(Clone, Debug)]
pub enum Trust {
    /// Callers that sign with one of these keys.
    Signed(Arc<Keys>),
    /// All callers: they are not authenticated.
    Insecure,
}

impl MeshArgs {
    /// Reads the keys. Fails without either flag, so that no mesh is open by mistake.
    pub fn trust(&self) -> anyhow::Result<Trust> {
        match (&self.mesh_secret, self.insecure_mesh) {
            (Some(secret), false) => {
                let keys = Keys::parse(secret.expose_secret()).context("--mesh-secret")?;
                Ok(Trust::Signed(Arc::new(keys)))
            }
            (None, true) => Ok(Trust::Insecure),
            (None, false) => {
                bail!(
                    "--mesh-secret-file is missing: make the secret with `stampede secrets`, the same for all processes"
                )
            }
            (Some(_), true) => bail!("--mesh-secret and --insecure-mesh exclude each other: leave out one"),
        }
    }

    /// Returns the signer of this process' calls.
    pub fn signer(&self, process: impl Into<Caller>) -> anyhow::Result<Signer> {
        Ok(Signer::new(self.trust()?, process.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(mesh_secret: Option<&str>, insecure_mesh: bool) -> MeshArgs {
        MeshArgs { mesh_secret: mesh_secret.map(SecretString::from), insecure_mesh }
    }

    #[test]
    fn nothing_said_is_refused_and_so_is_a_short_secret() {
        const SECRET: &str = "a secret of the tests, 32 bytes or more";
        let refused = |args: MeshArgs| format!("{:#}", args.trust().unwrap_err());
        assert!(refused(args(None, false)).contains("--mesh-secret-file is missing"));
        assert!(refused(args(Some(SECRET), true)).contains("exclude each other"));
        assert!(refused(args(Some("short"), false)).starts_with("--mesh-secret: a key of the mesh secret has 5 bytes"));
        assert!(matches!(args(Some(SECRET), false).trust(), Ok(Trust::Signed(_))));
        assert!(matches!(args(None, true).trust(), Ok(Trust::Insecure)));
        assert!(!format!("{:?}", args(Some(SECRET), false)).contains(SECRET));
    }
}
