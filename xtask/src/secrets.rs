//! Secrets of one run: made once at random, kept for its owner's eyes only.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;

const AUTH: &str = "STAMPEDE_AUTH_SECRET";
const WEBHOOK: &str = "STAMPEDE_WEBHOOK_SECRET";

/// What signs the gateway's tokens and the payment provider's webhooks.
#[derive(Clone, PartialEq, Eq)]
pub struct Secrets {
    /// HS256 key of the gateway's tokens.
    pub auth: String,
    /// Key of the payment provider's signatures.
    pub webhook: String,
}

impl Secrets {
    /// The secrets of this run, made on first use: tokens stay valid from one `up` to the next.
    pub fn of_run(run: &Path) -> anyhow::Result<Self> {
        let path = Self::file(run);
        if path.exists() {
            let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            return parse(&text).with_context(|| format!("{} has no secrets; remove it for new ones", path.display()));
        }
        let secrets = Self { auth: random_hex()?, webhook: random_hex()? };
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .and_then(|mut file| file.write_all(secrets.script().as_bytes()))
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(secrets)
    }

    /// Where a run keeps them: a script for a shell to source.
    pub fn file(run: &Path) -> PathBuf {
        run.join("secrets.env")
    }

    fn script(&self) -> String {
        format!("export {AUTH}={}\nexport {WEBHOOK}={}\n", self.auth, self.webhook)
    }
}

fn parse(script: &str) -> Option<Secrets> {
    let value = |name: &str| {
        let assigned =
            |line: &str| line.strip_prefix("export ")?.strip_prefix(name)?.strip_prefix('=').map(str::to_owned);
        script.lines().find_map(assigned)
    };
    Some(Secrets { auth: value(AUTH)?, webhook: value(WEBHOOK)? })
}

/// 32 bytes from the kernel, as 64 hexadecimal digits.
fn random_hex() -> anyhow::Result<String> {
    let mut bytes = [0_u8; 32];
    File::open("/dev/urandom")
        .and_then(|mut source| source.read_exact(&mut bytes))
        .context("cannot read /dev/urandom")?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_secrets_are_long_enough_and_differ() {
        let (one, other) = (random_hex().expect("readable"), random_hex().expect("readable"));
        assert_eq!(one.len(), 64);
        assert_ne!(one, other);
    }

    #[test]
    fn what_is_written_is_read_again_and_half_of_it_is_not() {
        let secrets = Secrets { auth: "a1".into(), webhook: "b2".into() };
        assert!(parse(&secrets.script()) == Some(secrets));
        assert!(parse("export STAMPEDE_AUTH_SECRET=a1\n").is_none());
    }
}
