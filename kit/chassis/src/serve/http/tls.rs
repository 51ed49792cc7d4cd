//! TLS of a server, with a certificate and key from files that are reloaded when they change.
//!
//! TLS 1.3 and 1.2 by rustls with aws-lc-rs, HTTP/2 and HTTP/1.1 by ALPN.

use anyhow::{Context, ensure};
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::watch,
    time::{MissedTickBehavior, interval},
};
use tokio_rustls::{Accept, TlsAcceptor};

/// Interval at which the files are checked. Tests wait less.
const CHECK_INTERVAL: Duration = if cfg!(test) { Duration::from_millis(20) } else { Duration::from_secs(10) };

/// Buffer of a connection, for plaintext and for ciphertext, in bytes.
const BUFFER_BYTES: usize = 64 * 1024;

/// Files of the certificate and its key, in PEM.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// The certificate chain, without the root.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// TLS configuration of a server.
pub struct Tls {
    files: TlsFiles,
    config: watch::Sender<Arc<ServerConfig>>,
}

/// The contents of the files.
#[derive(PartialEq, Eq)]
struct Pem {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl Tls {
    /// Reads the files. Fails if one cannot be read, or if the key does not match the certificate.
    pub async fn read(files: TlsFiles) -> anyhow::Result<Tls> {
        let config = files.config(&files.read().await?)?;
        Ok(Tls { files, config: watch::Sender::new(config) })
    }

    /// Starts the handshake of a connection, with the present certificate.
    pub(super) fn accept<S: AsyncRead + AsyncWrite + Unpin>(&self, socket: S) -> Accept<S> {
        let config = Arc::clone(&self.config.borrow());
        TlsAcceptor::from(config).accept_with(socket, |connection| connection.set_buffer_limit(Some(BUFFER_BYTES)))
    }

    /// Reloads the files whenever they change, for new connections. Keeps the old ones if they cannot be read.
    pub(super) async fn follow(&self) {
        let mut ticks = interval(CHECK_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut last, mut is_good) = (None, true);
        loop {
            ticks.tick().await;
            match self.reload_if_changed(&mut last).await {
                Ok(()) => is_good = true,
                Err(error) => {
                    if is_good {
                        tracing::error!(error.cause = format!("{error:#}"), "the certificate stays as it was");
                    }
                    is_good = false;
                }
            }
        }
    }

    async fn reload_if_changed(&self, last: &mut Option<Pem>) -> anyhow::Result<()> {
        let pem = self.files.read().await?;
        if last.as_ref() != Some(&pem) {
            self.config.send_replace(self.files.config(&pem)?);
            *last = Some(pem);
        }
        Ok(())
    }
}

impl TlsFiles {
    async fn read(&self) -> anyhow::Result<Pem> {
        Ok(Pem { certificate: read(&self.certificate).await?, key: read(&self.key).await? })
    }

    fn config(&self, pem: &Pem) -> anyhow::Result<Arc<ServerConfig>> {
        let (certificate, key) = (self.certificate.display(), self.key.display());
        let chain = CertificateDer::pem_slice_iter(&pem.certificate).collect::<Result<Vec<_>, _>>();
        let chain = chain.with_context(|| format!("{certificate} is not in PEM"))?;
        ensure!(!chain.is_empty(), "{certificate} has no certificate");
        let private = PrivateKeyDer::from_pem_slice(&pem.key).with_context(|| format!("{key} has no private key"))?;
        let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, private)
            .with_context(|| format!("{key} is not the key of {certificate}"))?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

async fn read(file: &Path) -> anyhow::Result<Vec<u8>> {
    tokio::fs::read(file).await.with_context(|| format!("cannot read {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(name: &str) -> PathBuf {
        Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/tls")).join(name)
    }

    async fn refused(certificate_file: &str, key_file: &str) -> String {
        let files = TlsFiles { certificate: certificate(certificate_file), key: certificate(key_file) };
        let Err(error) = Tls::read(files).await else { panic!("{certificate_file} with {key_file} is taken") };
        format!("{error:#}")
    }

    #[tokio::test]
    async fn files_that_do_not_fit_are_refused_by_name() {
        let missing = refused("none.pem", "one.key.pem").await;
        assert!(missing.contains("cannot read") && missing.contains("none.pem"), "{missing}");
        let swapped = refused("one.key.pem", "one.key.pem").await;
        assert!(swapped.contains("one.key.pem has no certificate"), "{swapped}");
        let no_key = refused("one.cert.pem", "one.cert.pem").await;
        assert!(no_key.contains("one.cert.pem has no private key"), "{no_key}");
        let other = refused("one.cert.pem", "two.key.pem").await;
        assert!(other.contains("two.key.pem is not the key of"), "{other}");
    }

    #[tokio::test]
    async fn a_certificate_that_has_changed_is_taken_and_one_that_is_broken_is_not() {
        let directory = std::env::temp_dir().join(format!("stampede-tls-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let files = TlsFiles { certificate: directory.join("cert.pem"), key: directory.join("key.pem") };
        let put = |name: &str| {
            std::fs::copy(certificate(&format!("{name}.cert.pem")), &files.certificate).unwrap();
            std::fs::copy(certificate(&format!("{name}.key.pem")), &files.key).unwrap();
        };
        put("one");
        let tls = Tls::read(files.clone()).await.unwrap();
        let mut configs = tls.config.subscribe();
        let following = async {
            // The first check loads the files.
            configs.changed().await.unwrap();
            put("two");
            configs.changed().await.unwrap();
            std::fs::write(&files.certificate, "broken").unwrap();
            let broken = tokio::time::timeout(CHECK_INTERVAL * 10, configs.changed()).await;
            assert!(broken.is_err(), "what cannot be read is not taken");
        };
        tokio::select! {
            () = following => {}
            () = tls.follow() => unreachable!("it follows for ever"),
        }
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
