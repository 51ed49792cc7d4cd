//! A Redis of a test's own, for what the shared one must not be set to.

use crate::{
    eventually,
    running::{free_address, mortal},
};
use anyhow::{Context, Result, ensure};
use std::{
    net::SocketAddr,
    process::{Child, Stdio},
    time::Duration,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufStream},
    net::TcpStream,
    time::timeout,
};

/// A private server. It ends when it is dropped.
#[derive(Debug)]
pub struct OwnRedis {
    child: Child,
    address: SocketAddr,
    _folder: TempDir,
}

impl OwnRedis {
    /// Starts a server that stores nothing, with these settings besides, such as `("maxmemory", "50mb")`.
    pub async fn start(settings: &[(&str, &str)]) -> Result<Self> {
        let address = free_address()?;
        let folder = TempDir::new()?;
        let mut command = mortal("redis-server");
        command.arg("--dir").arg(folder.path()).args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
        command.args(["--port", &address.port().to_string()]);
        for (name, value) in settings {
            command.args([&format!("--{name}"), *value]);
        }
        let child = command.stdout(Stdio::null()).spawn().context("redis-server cannot be started")?;
        let redis = Self { child, address, _folder: folder };
        eventually("a Redis of the test's own answers", || async { is_up(address).await.then_some(()) }).await;
        Ok(redis)
    }

    /// `redis://host:port`.
    pub fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// How many keys there are.
    pub async fn keys(&self) -> Result<u64> {
        let answer = command(self.address, "DBSIZE").await?;
        answer.strip_prefix(':').and_then(|count| count.parse().ok()).with_context(|| format!("no number: {answer}"))
    }

    /// Answers no client's command for so long, as a server that is busy does.
    pub async fn pause(&self, pause: Duration) -> Result<()> {
        let answer = command(self.address, &format!("CLIENT PAUSE {} ALL", pause.as_millis())).await?;
        ensure!(answer == "+OK", "{answer}");
        Ok(())
    }

    /// Closes every connection, as a server that restarts does.
    pub async fn disconnect_all(&self) -> Result<()> {
        let answer = command(self.address, "CLIENT KILL TYPE normal").await?;
        ensure!(answer.starts_with(':'), "{answer}");
        Ok(())
    }

    /// Loses everything, as a restart without a copy does.
    pub async fn empty(&self) -> Result<()> {
        let answer = command(self.address, "FLUSHALL").await?;
        ensure!(answer == "+OK", "{answer}");
        Ok(())
    }
}

impl Drop for OwnRedis {
    fn drop(&mut self) {
        // Already gone is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn is_up(address: SocketAddr) -> bool {
    command(address, "PING").await.is_ok_and(|answer| answer == "+PONG")
}

/// The first line that the server answers to a command.
async fn command(address: SocketAddr, command: &str) -> Result<String> {
    let exchange = async {
        let mut stream = BufStream::new(TcpStream::connect(address).await?);
        stream.write_all(format!("{command}\r\n").as_bytes()).await?;
        stream.flush().await?;
        let mut answer = String::new();
        stream.read_line(&mut answer).await?;
        Ok(answer.trim_end().to_owned())
    };
    timeout(Duration::from_secs(1), exchange).await.context("no answer")?
}
