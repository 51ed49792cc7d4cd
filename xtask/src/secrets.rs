//! Secrets of one run: made once at random, readable by their owner only. They lie in a script for a shell to source,
//! with the addresses of the run.

use crate::workspace::remove_file;
use anyhow::Context;
use std::{
    fs::{self, File, OpenOptions},
    io::{ErrorKind, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

/// The variable of the key of the gateway's tokens.
pub const AUTH: &str = "STAMPEDE_AUTH_SECRET";
/// The variable of the secret by which the processes of the mesh authenticate each other.
pub const MESH: &str = "STAMPEDE_MESH_SECRET";
const WEBHOOK: &str = "STAMPEDE_WEBHOOK_SECRET";

/// The keys that sign the gateway's tokens, the calls within the mesh, and the payment provider's webhooks.
#[derive(Clone, PartialEq, Eq)]
pub struct Secrets {
    /// HS256 key of the gateway's tokens.
    pub auth: String,
    /// Key of the calls within the mesh.
    pub mesh: String,
    /// Key of the payment provider's signatures.
    pub webhook: String,
}

impl Secrets {
    /// Returns the secrets that an earlier run stored here, or new ones: tokens stay valid from one `up` to the next.
    pub fn of_run(run: &Path) -> anyhow::Result<Self> {
        let path = Self::file(run);
        match fs::read_to_string(&path) {
            Ok(text) => {
                let parsed = parse(&text);
                let mut secrets =
                    parsed.with_context(|| format!("{} has no secrets; remove it for new ones", path.display()))?;
                // A file of a release that had no such secret.
                if secrets.mesh.is_empty() {
                    secrets.mesh = random_hex()?;
                }
                Ok(secrets)
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                Ok(Self { auth: random_hex()?, mesh: random_hex()?, webhook: random_hex()? })
            }
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    /// Writes the secrets, and with them the addresses of the run: its ports may differ from the last time.
    pub fn write(&self, run: &Path, addresses: &[(&str, String)]) -> anyhow::Result<()> {
        let (path, fresh) = (Self::file(run), run.join("secrets.env.new"));
        // An existing file would keep its mode.
        remove_file(&fresh)?;
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&fresh)
            .and_then(|mut file| file.write_all(self.script(addresses).as_bytes()))
            .and_then(|()| fs::rename(&fresh, &path))
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// Returns the file of a run's secrets.
    pub fn file(run: &Path) -> PathBuf {
        run.join("secrets.env")
    }

    fn script(&self, addresses: &[(&str, String)]) -> String {
        let secrets = [(AUTH, &self.auth), (MESH, &self.mesh), (WEBHOOK, &self.webhook)];
        let addresses = addresses.iter().map(|(name, value)| (*name, value));
        secrets.into_iter().chain(addresses).map(|(name, value)| format!("export {name}={value}\n")).collect()
    }
}

fn parse(script: &str) -> Option<Secrets> {
    let value = |name: &str| {
        let assigned =
            |line: &str| line.strip_prefix("export ")?.strip_prefix(name)?.strip_prefix('=').map(str::to_owned);
        script.lines().find_map(assigned)
    };
    Some(Secrets { auth: value(AUTH)?, mesh: value(MESH).unwrap_or_default(), webhook: value(WEBHOOK)? })
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
    use crate::scratch::Scratch;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn random_secrets_are_long_enough_and_differ() {
        let (one, other) = (random_hex().expect("readable"), random_hex().expect("readable"));
        assert_eq!(one.len(), 64);
        assert_ne!(one, other);
    }

    #[test]
    fn written_secrets_are_read_again_and_half_a_file_is_not() {
        let secrets = Secrets { auth: "a1".into(), mesh: "c3".into(), webhook: "b2".into() };
        assert!(parse(&secrets.script(&[("STAMPEDE_GATEWAY_URL", "http://127.0.0.1:8080".into())])) == Some(secrets));
        assert!(parse("export STAMPEDE_AUTH_SECRET=a1\n").is_none());
    }

    #[test]
    fn a_secret_that_an_earlier_release_did_not_have_is_made() {
        let run = Scratch::new("earlier-secrets");
        let script = "export STAMPEDE_AUTH_SECRET=a1\nexport STAMPEDE_WEBHOOK_SECRET=b2\n";
        fs::write(Secrets::file(run.path()), script).expect("writable");
        let secrets = Secrets::of_run(run.path()).expect("read");
        assert_eq!((secrets.auth.as_str(), secrets.mesh.len()), ("a1", 64));
    }

    #[test]
    fn a_second_run_keeps_the_secrets_and_has_its_own_addresses() {
        let run = Scratch::new("secrets");
        let first = Secrets::of_run(run.path()).expect("made");
        for port in ["8080", "8081"] {
            let address = format!("http://127.0.0.1:{port}");
            first.write(run.path(), &[("STAMPEDE_GATEWAY_URL", address)]).expect("writable");
        }
        assert!(Secrets::of_run(run.path()).expect("read again") == first);
        let file = Secrets::file(run.path());
        let script = fs::read_to_string(&file).expect("written");
        assert!(script.contains("8081") && !script.contains("8080"), "{script}");
        let mode = fs::metadata(&file).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
